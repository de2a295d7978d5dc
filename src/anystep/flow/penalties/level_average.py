"""A weight by the mean error of an example's level."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from anystep.flow.penalties.own_error import OwnErrorWeight
from anystep.flow.query import Query


@dataclass(frozen=True)
class LevelAverageWeight(OwnErrorWeight):
    """As `own_error`, with the mean error of an example's level in place of its own: no example counts by its luck.

    ::

        e_k = running mean of the mean squared error of level k (the examples of a tag)
        w   = min(cap, (a / (e_k + floor))^power)   in the examples that the objective marks; no gradient
        w   = 1                                     in the others, and in a level that has not been observed

    The gradient of a level is that of its own loss times one number: unlike `own_error`, it pulls towards the mean.
    """

    name: ClassVar[str] = "level_average"

    def start(
        self, shape: tuple[int, ...], tags: Sequence[str], marked: Sequence[str], device: torch.device
    ) -> nn.Module:
        """Return the running means, a and of each tag, 0 before their first observation, and what the tags are."""
        state = super().start(shape, tags, marked, device)
        state.register_buffer("level_error", torch.zeros(len(tags), dtype=torch.float64))
        return state

    def ratio(self, state: nn.Module, error: float, raw: Tensor, query: Query, tag: Tensor) -> Tensor:
        """Return min(cap, (error / (mean of the level + floor))^power), [B]; 1 in a level without a mean."""
        levels = state.get_buffer("level_error")
        w = (error / (levels + self.floor)).pow(self.power).clamp(max=self.cap)
        return torch.where(levels > 0, w, 1.0).to(raw)[tag]

    def statistics(self, state: nn.Module, raw: Tensor, query: Query, tag: Tensor) -> dict[str, Tensor]:
        """Return the sums and counts that a is the mean of, and the errors' sum and number of each tag, [tags] each."""
        kinds, index = len(state.get_buffer("level_error")), tag.cpu()
        sums, counts = torch.bincount(index, raw.cpu().double(), kinds), torch.bincount(index, minlength=kinds)
        return {**super().statistics(state, raw, query, tag), "level_error": sums, "level_rows": counts}

    def observe(self, state: nn.Module, total: dict[str, Tensor]) -> None:
        """Update the running means; that of a level without examples in the update stays."""
        super().observe(state, total)
        levels, rows = state.get_buffer("level_error"), total["level_rows"]
        new = total["level_error"] / rows.clamp(min=1)
        moved = torch.where(levels > 0, torch.lerp(levels, new, 1 - self.decay), new)
        levels.copy_(torch.where(rows > 0, moved, levels))
