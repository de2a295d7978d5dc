"""What a method is: a frozen set of hyper-parameters that maps a batch to a regression.

An objective never owns a loop, never does I/O and never asks how many processes there are. All its randomness comes
from a `Draw`, which is keyed by (seed, step, stream) and made for the global batch.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from anystep.flow.check import finite
from anystep.flow.ladder import Schedule
from anystep.flow.loss import squared_error
from anystep.flow.network import Network, null_label


@dataclass(frozen=True)
class Batch:
    """Our rows of the global batch: data ``x1`` [B, ...], its noise ``x0`` alike, ``label`` int64 [B] or None."""

    x1: Tensor
    x0: Tensor
    label: Tensor | None = None


@dataclass(frozen=True)
class Networks:
    """``online`` is trained; ``target`` is its moving average, ``teacher`` a frozen network; neither gets gradients."""

    online: Network
    target: Network | None = None
    teacher: Network | None = None


@dataclass(frozen=True)
class Progress:
    """How far the run is: ``step`` updates done, of ``steps`` in all."""

    step: int
    steps: int

    @property
    def fraction(self) -> float:
        """Share of the run that is done, in [0, 1)."""
        return self.step / self.steps


@dataclass(frozen=True)
class Query:
    """What the online network is asked: its arguments, rows aligned."""

    x_t: Tensor
    t: Tensor
    d: Tensor
    label: Tensor | None = None
    guidance: Tensor | None = None


@dataclass(frozen=True)
class Targets:
    """A regression: ``query`` [B], what the answer should be, each row's weight (None: 1) and tag.

    ``tag`` int64 [B] is an index into the objective's `tags`; it only sorts the log.
    """

    query: Query
    target: Tensor
    tag: Tensor
    weight: Tensor | None = None


@dataclass(frozen=True)
class Losses:
    """One loss for each of our rows [B], rows that count for nothing included, with what the log sorts it by.

    The update's loss is the sum of ``rows`` over all ranks and micro-batches over the global batch; ``t`` [B] and
    ``tag`` [B] are in the same order.
    """

    rows: Tensor
    t: Tensor
    tag: Tensor


#: rows that one generator draws
BLOCK = 32


def generator(seed: int, step: int, stream: str) -> torch.Generator:
    """Return the CPU generator of one (seed, step, stream): the only source of randomness in a run."""
    digest = hashlib.blake2b(f"{seed}/{step}/{stream}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


@dataclass(frozen=True)
class Draw:
    """The random quantities of one training step, drawn for the global batch of ``total`` rows; ``rows`` are ours.

    Each block of 32 rows has a generator of its own, so that a rank or a micro-batch draws its own blocks only. Draws
    are made on the CPU and moved, so that they do not depend on the device either.
    """

    seed: int
    step: int
    total: int
    rows: slice
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def normal(self, stream: str, shape: Sequence[int]) -> Tensor:
        """Return standard normal [our rows, *shape]."""
        return self._blocks(stream, lambda source: torch.randn(BLOCK, *shape, generator=source))

    def uniform(self, stream: str) -> Tensor:
        """Return uniform [0, 1) float32 [our rows]."""
        return self._blocks(stream, lambda source: torch.rand(BLOCK, generator=source))

    def _blocks(self, stream: str, make: Callable[[torch.Generator], Tensor]) -> Tensor:
        first, last = self.rows.start // BLOCK, -(-self.rows.stop // BLOCK)
        sources = (generator(self.seed, self.step, f"{stream}/{block}") for block in range(first, last))
        rows = torch.cat([make(source) for source in sources])
        return rows[self.rows.start - first * BLOCK : self.rows.stop - first * BLOCK].to(self.device)

    def ours(self, every: Tensor) -> Tensor:
        """Return our rows of a quantity that was made for the global batch."""
        return every[self.rows].to(self.device)


def drop_label(
    network: Network, label: Tensor | None, probability: float, draw: Draw, kept: Tensor | None = None
) -> Tensor | None:
    """Replace labels by the null label with the given probability, except in ``kept`` rows (bool [B])."""
    if label is None:
        return None
    dropped = draw.uniform("label_drop") < probability
    if kept is not None:
        dropped = dropped & ~kept
    return torch.where(dropped, null_label(network), label)


def check_null_label(label_drop: float, guidance: float) -> None:
    """Raise ValueError when ``guidance`` would ask for a null label that no row was ever trained on."""
    if label_drop == 0:
        raise ValueError(
            f"guidance {guidance:g} asks the network for its null label, which was never trained, as "
            "objective.label_drop is 0: leave guidance out, train with objective.label_drop 0.1, or allow it explicitly"
        )


class Objective(ABC):
    """One method. Subclasses are frozen dataclasses whose fields are the method's hyper-parameters."""

    name: ClassVar[str]
    #: number of smallest steps of the ladder, a power of two; subclasses have it as a field
    M: int
    #: whether the network needs the step d as an input
    uses_step: ClassVar[bool] = False
    #: whether targets come from a moving average of the online network
    uses_target: ClassVar[bool] = False

    @property
    def tags(self) -> tuple[str, ...]:
        """Names of the kinds of row: ``flow`` for empirical velocities, otherwise the trained step d."""
        return ("flow",)

    def check(self, num_classes: int | None) -> None:  # noqa: B027  most methods take any data
        """Raise ValueError when data of so many classes (None: without labels) cannot be trained on."""

    def check_batch(self, batch: int) -> None:  # noqa: B027  most methods take any batch
        """Raise ValueError when a global batch of so many rows leaves a part of the method untrained."""

    @abstractmethod
    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: Progress) -> Targets:
        """Map a batch to a regression. Makes no gradient."""

    def loss(self, networks: Networks, batch: Batch, draw: Draw, progress: Progress) -> Losses:
        """Return the penalty of each row; only a method that is no per-row regression overrides this."""
        targets = self.targets(networks, batch, draw, progress)
        query = targets.query
        prediction = networks.online(query.x_t, query.t, query.d, query.label, query.guidance)
        rows = self.penalty(prediction, targets.target)
        if targets.weight is not None:
            rows = rows * targets.weight
        return Losses(rows, query.t, targets.tag)

    def penalty(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the squared error, [B]."""
        return squared_error(prediction, target)

    def velocity(self, network: Network) -> Network:
        """Return the network as a velocity field, for sampling."""
        return network

    @abstractmethod
    def schedule(self, steps: int) -> Schedule:
        """Return how a budget of ``steps`` is sampled."""

    def step_guidance(self, schedule: Schedule, guidance: float | None, twice: bool = False) -> list[float]:
        """Return the guidance scale of each step; None means "as trained".

        Raises ValueError when that would guide a step that was trained with guidance already, or whose null label was
        never trained, unless ``twice``; and for a scale that is not finite. 1 is always allowed: it asks for no null.
        """
        scale = 1.0 if guidance is None else guidance
        finite("guidance", scale)
        if scale != 1 and not twice:
            self.check_guidance(schedule, scale)
        return [scale] * len(schedule)

    def check_guidance(self, schedule: Schedule, guidance: float) -> None:  # noqa: B027  most allow any
        """Raise ValueError when these steps were not trained for a guidance other than 1 in sampling."""

    def caution(self, schedule: Schedule, guidance: float | None) -> str | None:
        """Return what a person should know of samples that are drawn like this, or None."""
        return None

    @property
    def cost(self) -> float:
        """Cost of a training step, in units of flow matching's: forward 1, backward 2, over 3."""
        return 1.0
