"""What a method is: a frozen set of hyper-parameters that maps a batch to a regression.

An objective never owns a loop, never does I/O and never asks how many processes there are. All its randomness comes
from a `Draw`, which is keyed by (seed, step, stream) and made for the global batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from anystep.core.errors import UsageError
from anystep.core.fields import finite
from anystep.core.random import Draw
from anystep.core.registry import Option
from anystep.flow.ladder import Schedule
from anystep.flow.network import Network, null_label
from anystep.flow.penalties.squared import squared_error
from anystep.flow.sampling import Callback, Renoise, sample, sample_consistency


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
    """How far the phase is: ``step`` updates done, of ``steps`` in it; ``index`` is the phase's own (`Phase.index`)."""

    step: int
    steps: int
    index: int = 0

    @property
    def fraction(self) -> float:
        """Share of the phase that is done, in [0, 1)."""
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


#: penalty(prediction, target, query): how far each answer is off, [B]
Penalty = Callable[[Tensor, Tensor, Query], Tensor]


def regress(networks: Networks, targets: Targets, penalty: Penalty) -> Losses:
    """Ask the online network and return the weighted penalty of each row."""
    query = targets.query
    prediction = networks.online(query.x_t, query.t, query.d, query.label, query.guidance)
    rows = penalty(prediction, targets.target, query)
    if targets.weight is not None:
        rows = rows * targets.weight
    return Losses(rows, query.t, targets.tag)


@dataclass(frozen=True)
class Pairs:
    """Noise joined to the data that a trained flow carries it to: ``num`` pairs, in ``steps`` Euler steps, guided."""

    num: int
    steps: int
    guidance: float = 1.0

    @property
    def cost(self) -> int:
        """Network forward passes that all of them take: a guided step takes two."""
        return self.num * self.steps * (1 if self.guidance in {0, 1} else 2)


@dataclass(frozen=True)
class Phase:
    """A part of a run: what is trained in it, on how much of the run's images, and what it begins with.

    Every phase but the first begins with a hand-over: the average that is kept for evaluation becomes the frozen
    teacher, and the student goes on from a copy of it. ``share`` is relative to the other phases' shares; ``cost`` is
    that of an update, flow matching's being 1. ``pairs`` are made by the teacher first, and trained on in place of the
    data. ``index`` reaches the objective as `Progress.index`. ``teaches`` marks the phase that trains the first
    teacher: it is left out of a run that begins with a trained network (`init.run`), and its share then is no matter.
    """

    name: str
    objective: "Objective"
    share: float
    cost: float
    index: int = 0
    pairs: Pairs | None = None
    teaches: bool = False


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
        raise UsageError(
            f"guidance {guidance:g} asks the network for its null label, which was never trained, as "
            "objective.label_drop is 0: leave guidance out, train with objective.label_drop 0.1, or allow it explicitly"
        )


def check_built_in(guidance: float, label_drop: float, num_classes: int | None) -> None:
    """Raise ValueError for guidance in training on data without classes, or with a null label that nothing trains."""
    if guidance != 1 and num_classes is None:
        raise UsageError(f"objective.guidance {guidance:g} needs classes, and this data has none: set it to 1")
    if guidance != 1 and label_drop == 0:
        raise UsageError("objective.guidance needs a trained null label: set objective.label_drop above 0, e.g. 0.1")


class Objective(Option, ABC, section="objective"):
    """One method. Subclasses are frozen dataclasses whose fields are the method's hyper-parameters."""

    #: number of smallest steps of the ladder, a power of two; subclasses have it as a field
    M: int = 128
    #: probability that training replaces a label by the null label; subclasses have it as a field
    label_drop: float = 0.0
    #: whether the network needs the step d as an input
    uses_step: ClassVar[bool] = False
    #: whether d takes any value in [0, 1], not rungs of the ladder only: the network's step encoding is continuous then
    any_step: ClassVar[bool] = False
    #: whether the network needs the guidance scale W as an input
    takes_guidance: ClassVar[bool] = False
    #: whether targets come from a moving average of the online network
    uses_target: ClassVar[bool] = False
    #: whether targets come from a frozen, trained network
    uses_teacher: ClassVar[bool] = False
    #: whether targets differentiate the network in forward mode (a JVP): its inputs should be smooth then
    uses_jvp: ClassVar[bool] = False
    #: what the network's last layer says: the velocity, or the noise in x_t (the network makes a velocity of it)
    predicts: ClassVar[str] = "velocity"
    #: whether samples are drawn by jumps to the end with fresh noise in between (consistency models)
    stochastic: ClassVar[bool] = False
    #: whether targets depend on how far the run is: its length cannot change
    scheduled: ClassVar[bool] = False

    @property
    def tags(self) -> tuple[str, ...]:
        """Names of the kinds of row over all phases: ``flow`` (empirical velocities) first, otherwise the step d."""
        return ("flow",)

    @property
    def group(self) -> int:
        """Neighbouring rows that are compared with each other: a micro-batch holds a multiple of so many."""
        return 1

    def phases(self) -> tuple[Phase, ...]:
        """Return the parts of a run, one for nearly every method."""
        return (Phase("train", self, share=1.0, cost=self.cost),)

    def check(self, num_classes: int | None) -> None:
        """Raise ValueError when data of so many classes (None: without labels) cannot be trained on."""

    def check_batch(self, batch: int) -> None:
        """Raise ValueError when a global batch of so many rows leaves a part of the method untrained."""

    @abstractmethod
    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: Progress) -> Targets:
        """Map a batch to a regression. Makes no gradient."""

    def loss(self, networks: Networks, batch: Batch, draw: Draw, progress: Progress) -> Losses:
        """Return the penalty of each row; only a method that is no per-row regression overrides this."""
        return regress(networks, self.targets(networks, batch, draw, progress), self.penalty)

    def penalty(self, prediction: Tensor, target: Tensor, query: Query) -> Tensor:
        """Return how far the answer to ``query`` is off, [B]: the squared error."""
        return squared_error(prediction, target)

    def sample(
        self,
        network: Network,
        noise: Tensor,
        *,
        steps: Schedule,
        label: Tensor | None,
        guidance: Sequence[float],
        callback: Callback | None = None,
        renoise: Renoise | None = None,
    ) -> Tensor:
        """Carry ``noise`` [B, ...] to data: by Euler steps or, with a `stochastic` method, by jumps to the end.

        After each jump but the last comes fresh noise, ``renoise(n)`` of step n = 0, 1, ..., shaped like ``noise``.
        """
        x_t = self.start(noise, steps)
        if not self.stochastic:
            return sample(network, x_t, steps=steps, label=label, guidance=guidance, callback=callback)
        return sample_consistency(
            network, x_t, steps=steps, label=label, guidance=guidance, callback=callback, renoise=renoise
        )

    def start(self, noise: Tensor, schedule: Schedule) -> Tensor:
        """Return the x_t that sampling begins with, made of ``noise`` [B, ...]: the noise itself for most methods."""
        return noise

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

    def check_guidance(self, schedule: Schedule, guidance: float) -> None:
        """Raise ValueError when these steps were not trained for this guidance in sampling, which is not 1.

        So it is whenever no label was dropped: the null label is noise then.
        """
        check_null_label(self.label_drop, guidance)

    def caution(self, schedule: Schedule, guidance: float | None) -> str | None:
        """Return what a person should know of samples that are drawn like this, or None."""
        return None

    @property
    def cost(self) -> float:
        """Cost of an update on this objective's own targets, flow matching's being 1: forward 1, backward 2, over 3."""
        return 1.0
