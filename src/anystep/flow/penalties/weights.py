"""How much each example counts in the loss: equally, or by a factor that rises over the run."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor, nn

from anystep.core.errors import UsageError
from anystep.core.fields import Fraction, require
from anystep.flow.penalties.base import LossPart, update_mean
from anystep.flow.query import PhaseProgress, Query
from anystep.flow.rise import Shape, rise


class Weight(LossPart, section="weight"):
    """How much each example's penalty counts. The log shows the loss without it."""

    @abstractmethod
    def rows(
        self, state: nn.Module, rows: Tensor, raw: Tensor, query: Query, tag: Tensor, progress: PhaseProgress
    ) -> Tensor:
        """Return the penalties ``rows`` [B] with their weights, [B].

        ``raw``: mean squared error of each example, [B], no gradient. ``query``: where the network was evaluated.
        """

    def factor(
        self, state: nn.Module, raw: Tensor, query: Query, tag: Tensor, progress: PhaseProgress
    ) -> Tensor | None:
        """Return what the log shows as the weight of each example, [B]; None: nothing."""
        return None

    def statistics(self, state: nn.Module, raw: Tensor, query: Query, tag: Tensor) -> dict[str, Tensor]:
        """Return sums and counts over a micro-batch, without a gradient; `observe` gets those of the whole update."""
        return {}


@dataclass(frozen=True)
class NoWeight(Weight):
    """Every example counts as the objective has it."""

    name: ClassVar[str] = "none"

    def rows(
        self, state: nn.Module, rows: Tensor, raw: Tensor, query: Query, tag: Tensor, progress: PhaseProgress
    ) -> Tensor:
        """Return ``rows`` unchanged."""
        return rows


@dataclass(frozen=True)
class RisingWeight(Weight):
    """A factor 1 + rise (w - 1) on the examples that the objective marks: their target is a network's prediction.

    The others count 1. A flow that is not learned yet gives poor targets: the factor can be 1 until ``none_until``, and
    rise to w at ``full_from``.
    """

    none_until: Fraction = 0.0
    """Fraction of the phase, in [0, 1], up to which every example counts 1."""
    full_from: Fraction = 0.0
    """Fraction of the phase, in [none_until, 1], from which on the factor is w."""
    shape: Shape = "linear"
    """How the factor rises in between: by equal parts (`linear`), smoothly at both ends (`cosine`), at once in the
    middle (`step`)."""

    def check_combinations(self) -> None:
        """Raise UsageError if the factor is full before it starts to rise."""
        require(self.none_until <= self.full_from, "weight.full_from", self.full_from, f"in [{self.none_until:g}, 1]")

    def start(
        self, shape: tuple[int, ...], tags: Sequence[str], marked: Sequence[str], device: torch.device
    ) -> nn.Module:
        """Return which tags are flow and which are marked, not stored. Raises UsageError if none is marked."""
        if not marked:
            raise UsageError(
                f"weight {self.name} is for examples whose target a network predicts, and this method trains on none: "
                "remove the section weight, or set objective.share above 0 if it is 0"
            )
        state = nn.Module()
        for name, kinds in (("flow", ("flow",)), ("marked", marked)):
            state.register_buffer(name, torch.tensor([tag in kinds for tag in tags], device=device), persistent=False)
        return state

    @abstractmethod
    def full_factor(self, state: nn.Module, raw: Tensor, query: Query, tag: Tensor) -> Tensor:
        """Return w of each example, [B], without a gradient; those of examples that are not marked are ignored."""

    def rows(
        self, state: nn.Module, rows: Tensor, raw: Tensor, query: Query, tag: Tensor, progress: PhaseProgress
    ) -> Tensor:
        """Return ``rows`` times `factor`."""
        return rows * self.factor(state, raw, query, tag, progress)

    def factor(self, state: nn.Module, raw: Tensor, query: Query, tag: Tensor, progress: PhaseProgress) -> Tensor:
        """Return 1 + rise (w - 1) where examples are marked, else 1; [B], no gradient."""
        full = rise(progress.fraction, self.none_until, self.full_from, self.shape)
        if full == 0:
            return torch.ones_like(raw)
        with torch.no_grad():
            w = self.full_factor(state, raw, query, tag)
            return torch.where(state.get_buffer("marked")[tag], 1 + full * (w - 1), 1.0)


@dataclass(frozen=True)
class RelativeWeight(RisingWeight):
    """A factor that compares a marked example's error with that of the flow examples.

    ``a`` is the running mean of the flow examples' mean squared error; of all examples in an update without flow
    examples. It depends neither on the data's dimension nor on how an update is divided. Before it is observed for the
    first time every example counts 1.
    """

    decay: Annotated[float, Interval(ge=0, lt=1)] = 0.99
    """Decay per update of the running mean, in [0, 1)."""

    def start(
        self, shape: tuple[int, ...], tags: Sequence[str], marked: Sequence[str], device: torch.device
    ) -> nn.Module:
        """Return the running mean a, 0 before the first update, and which tags are flow and which are marked."""
        state = super().start(shape, tags, marked, device)
        state.register_buffer("error", torch.zeros((), dtype=torch.float64))
        return state

    @abstractmethod
    def ratio(self, state: nn.Module, error: float, raw: Tensor, query: Query, tag: Tensor) -> Tensor:
        """Return w of each example, [B], given a = ``error`` > 0."""

    def full_factor(self, state: nn.Module, raw: Tensor, query: Query, tag: Tensor) -> Tensor:
        """Return `ratio`, or 1 before the first update."""
        error = float(state.get_buffer("error"))
        return self.ratio(state, error, raw, query, tag) if error > 0 else torch.ones_like(raw)

    def statistics(self, state: nn.Module, raw: Tensor, query: Query, tag: Tensor) -> dict[str, Tensor]:
        """Return sums and counts of the errors, of flow examples and of all."""
        flow = state.get_buffer("flow")[tag]
        flow_error, rows = torch.where(flow, raw, 0.0).sum(), torch.tensor(len(raw))
        return {"flow_error": flow_error, "flow_rows": flow.sum(), "error": raw.sum(), "rows": rows}

    def observe(self, state: nn.Module, total: dict[str, Tensor]) -> None:
        """Update the running mean with the mean error of an update."""
        kind = "flow_" if total["flow_rows"] else ""
        update_mean(state.get_buffer("error"), total[f"{kind}error"] / total[f"{kind}rows"], self.decay)
