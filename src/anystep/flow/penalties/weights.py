"""How much each row counts: nothing to add, or a factor that depends on how far off the row is."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from anystep.core.fields import Finite, Fraction, PositiveFloat, in_range
from anystep.flow.penalties.base import LossPart
from anystep.flow.progress import PhaseProgress
from anystep.flow.query import Query


class Weight(LossPart, section="weight"):
    """How much each row's penalty counts. The log shows the loss without it."""

    @abstractmethod
    def rows(
        self, state: nn.Module, rows: Tensor, raw: Tensor, query: Query, tag: Tensor, progress: PhaseProgress
    ) -> Tensor:
        """Return the penalties ``rows`` [B] as they count in the loss, [B].

        ``raw``: mean squared error of each row, [B], without a gradient. ``progress``: how far the phase is.
        """

    def statistics(self, state: nn.Module, raw: Tensor, query: Query, tag: Tensor) -> dict[str, Tensor]:
        """Return sums and counts over these rows, which `observe` gets for the whole update. Without a gradient."""
        return {}


@dataclass(frozen=True)
class NoWeight(Weight):
    """Every row counts as the objective has it."""

    name: ClassVar[str] = "none"

    def rows(
        self, state: nn.Module, rows: Tensor, raw: Tensor, query: Query, tag: Tensor, progress: PhaseProgress
    ) -> Tensor:
        """Return ``rows`` as they are."""
        return rows


@dataclass(frozen=True)
class OwnErrorWeight(Weight):
    """Give rows with a small error a large weight, so that accurate targets are not drowned by noisy ones.

    ::

        a = running mean of the flow rows' mean squared error, of all rows' in an update that has no flow rows
        w = min(cap, (a / (e + floor))^power)   in the rows that the objective marks, e their error; no gradient
        w = 1                                   in the other rows, and until the first update was made

    A flow row regresses one random velocity of many, so that its error stays at their variance. A self-consistency
    row regresses what a network predicts, with an error 30 to 100 times smaller: in an equally weighted mean its
    gradient is lost in the other's noise. With power 1 both kinds count alike. A flow that is not learned yet makes
    poor targets: the factor can be 1 until ``none_until``, and rise linearly to w at ``full_from``.
    """

    name: ClassVar[str] = "own_error"

    cap: Annotated[float, Ge(1), Finite] = 20.0
    """Largest factor, at least 1."""
    floor: PositiveFloat = 1e-3
    """Added to each row's error, in units of normalised data squared, greater than 0."""
    power: Annotated[float, Interval(gt=0, le=2)] = 1.0
    """Power of the ratio, in (0, 2]: 1/2 weighs half as strongly, in logarithms."""
    none_until: Fraction = 0.0
    """Fraction of the phase, in [0, 1], up to which every row counts 1."""
    full_from: Fraction = 0.0
    """Fraction of the phase, in [none_until, 1], from which on the factor is w."""
    decay: Annotated[float, Interval(ge=0, lt=1)] = 0.99
    """Decay per update of the running mean, in [0, 1)."""

    def check_combinations(self) -> None:
        """Raise UsageError unless the factor is full after it begins to rise."""
        in_range("weight.full_from", self.full_from, self.none_until, 1)

    def start(
        self, shape: tuple[int, ...], tags: Sequence[str], marked: Sequence[str], device: torch.device
    ) -> nn.Module:
        """Return the running mean, 0 until the first update, and which tags are flow rows and which are marked."""
        state = nn.Module()
        state.register_buffer("error", torch.zeros((), dtype=torch.float64))
        for name, kinds in (("flow", ("flow",)), ("marked", marked)):
            state.register_buffer(name, torch.tensor([tag in kinds for tag in tags], device=device), persistent=False)
        return state

    def rows(
        self, state: nn.Module, rows: Tensor, raw: Tensor, query: Query, tag: Tensor, progress: PhaseProgress
    ) -> Tensor:
        """Return ``rows`` times 1 + rise (w - 1) where they are marked."""
        error, rise = float(state.get_buffer("error")), self.rise(progress.fraction)
        if error == 0 or rise == 0:
            return rows
        w = (error / (raw + self.floor)).pow(self.power).clamp(max=self.cap)  # [B]
        return rows * torch.where(state.get_buffer("marked")[tag], 1 + rise * (w - 1), 1.0)

    def rise(self, fraction: float) -> float:
        """Return how much of the weight acts at this fraction of the phase, in [0, 1]."""
        if fraction >= self.full_from:
            return 1.0
        if fraction <= self.none_until:
            return 0.0
        return (fraction - self.none_until) / (self.full_from - self.none_until)

    def statistics(self, state: nn.Module, raw: Tensor, query: Query, tag: Tensor) -> dict[str, Tensor]:
        """Return sums and counts of the errors, of flow rows and of all rows."""
        flow = state.get_buffer("flow")[tag]
        flow_error, rows = torch.where(flow, raw, 0.0).sum(), torch.tensor(len(raw))
        return {"flow_error": flow_error, "flow_rows": flow.sum(), "error": raw.sum(), "rows": rows}

    def observe(self, state: nn.Module, total: dict[str, Tensor]) -> None:
        """Take an update's mean into the running mean, which starts with the first."""
        kind = "flow_" if total["flow_rows"] else ""
        new, before = total[f"{kind}error"] / total[f"{kind}rows"], state.get_buffer("error")
        before.copy_(torch.lerp(before, new, 1 - self.decay) if before else new)
