"""How much each example counts in the loss: equally, or by a factor that depends on its error."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from anystep.core.fields import Finite, Fraction, PositiveFloat, require
from anystep.flow.penalties.base import LossPart, update_mean
from anystep.flow.query import PhaseProgress, Query


class Weight(LossPart, section="weight"):
    """How much each example's penalty counts. The log shows the loss without it."""

    @abstractmethod
    def rows(
        self, state: nn.Module, rows: Tensor, raw: Tensor, query: Query, tag: Tensor, progress: PhaseProgress
    ) -> Tensor:
        """Return the penalties ``rows`` [B] with their weights, [B].

        ``raw``: mean squared error of each example, [B], no gradient. ``query``: where the network was evaluated.
        """

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
class OwnErrorWeight(Weight):
    """Give examples with a small error a large weight, so that accurate targets are not drowned by noisy ones.

    ::

        a = running mean of the flow examples' mean squared error; of all examples in an update without flow examples
        w = min(cap, (a / (e + floor))^power)   in the examples that the objective marks, e their error; no gradient
        w = 1                                   in the others, and before the first update

    A flow example regresses one random velocity of many, so that its error stays at their variance. A self-consistency
    example regresses a prediction, with an error 30 to 100 times smaller: in an equally weighted mean its gradient is
    lost in the noise of the others. With power 1 both kinds count equally. A flow that is not learned yet gives poor
    targets: the factor can be 1 until ``none_until``, and rise linearly to w at ``full_from``.
    """

    name: ClassVar[str] = "own_error"

    cap: Annotated[float, Ge(1), Finite] = 20.0
    """Largest factor, at least 1."""
    floor: PositiveFloat = 1e-3
    """Added to each example's error, in units of normalised data squared, greater than 0."""
    power: Annotated[float, Interval(gt=0, le=2)] = 1.0
    """Power of the ratio, in (0, 2]: 1/2 weighs half as strongly, in logarithms."""
    none_until: Fraction = 0.0
    """Fraction of the phase, in [0, 1], up to which every example counts 1."""
    full_from: Fraction = 0.0
    """Fraction of the phase, in [none_until, 1], from which on the factor is w."""
    decay: Annotated[float, Interval(ge=0, lt=1)] = 0.99
    """Decay per update of the running mean, in [0, 1)."""

    def check_combinations(self) -> None:
        """Raise UsageError if the factor is full before it starts to rise."""
        require(self.none_until <= self.full_from, "weight.full_from", self.full_from, f"in [{self.none_until:g}, 1]")

    def start(
        self, shape: tuple[int, ...], tags: Sequence[str], marked: Sequence[str], device: torch.device
    ) -> nn.Module:
        """Return the running mean, 0 before the first update, and which tags are flow and which are marked."""
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
        """Return sums and counts of the errors, of flow examples and of all."""
        flow = state.get_buffer("flow")[tag]
        flow_error, rows = torch.where(flow, raw, 0.0).sum(), torch.tensor(len(raw))
        return {"flow_error": flow_error, "flow_rows": flow.sum(), "error": raw.sum(), "rows": rows}

    def observe(self, state: nn.Module, total: dict[str, Tensor]) -> None:
        """Update the running mean with the mean error of an update."""
        kind = "flow_" if total["flow_rows"] else ""
        update_mean(state.get_buffer("error"), total[f"{kind}error"] / total[f"{kind}rows"], self.decay)
