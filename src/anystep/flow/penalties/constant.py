"""A constant weight per level."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn

from anystep.core.errors import UsageError
from anystep.core.fields import Finite
from anystep.flow.penalties.weights import RisingWeight
from anystep.flow.query import Query


@dataclass(frozen=True)
class ConstantWeight(RisingWeight):
    """Count the examples of each level a constant number of times, where the objective marks them."""

    name: ClassVar[str] = "constant"

    factors: Annotated[tuple[float, ...], Ge(0), Finite] = (8.0,)
    """Of all marked examples, or of each level that is marked, finest first; not negative."""

    def start(
        self, shape: tuple[int, ...], tags: Sequence[str], marked: Sequence[str], device: torch.device
    ) -> nn.Module:
        """Return each tag's factor, not stored. Raises UsageError for another number of them than levels."""
        state = super().start(shape, tags, marked, device)
        if len(self.factors) not in {1, len(marked)}:
            numbers = f"1 or {len(marked)}" if len(marked) > 1 else "1"
            raise UsageError(f"weight.factors must be {numbers}, for {', '.join(marked)}, got {len(self.factors)}")
        factors = self.factors if len(self.factors) > 1 else self.factors * len(marked)
        by_tag = dict(zip(marked, factors, strict=True))
        values = torch.tensor([by_tag.get(tag, 1.0) for tag in tags], device=device)
        state.register_buffer("factors", values, persistent=False)
        return state

    def full_factor(self, state: nn.Module, raw: Tensor, query: Query, tag: Tensor) -> Tensor:
        """Return the factor of each example's level, [B]."""
        return state.get_buffer("factors")[tag]
