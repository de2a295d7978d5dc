"""A weight on all examples, which `anystep` does not have: it moves the velocity field towards a median."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from anystep.flow.penalties import OwnErrorWeight


@dataclass(frozen=True)
class AllExamples(OwnErrorWeight):
    """`OwnErrorWeight` on flow examples too: the table's "all examples"."""

    name: ClassVar[str] = "one_step_weights:AllExamples"

    def start(
        self, shape: tuple[int, ...], tags: Sequence[str], marked: Sequence[str], device: torch.device
    ) -> nn.Module:
        """Mark the examples of all kinds."""
        return super().start(shape, tags, tags, device)
