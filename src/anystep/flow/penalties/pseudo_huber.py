"""The pseudo-Huber penalty: squared near zero, the distance far away (Song & Dhariwal 2023, section 3.3)."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from anystep.core.fields import PositiveFloat
from anystep.flow.penalties.base import Penalty, RowError
from anystep.flow.query import Query


def pseudo_huber(prediction: Tensor, target: Tensor, c: float) -> Tensor:
    """Return ``sqrt(|prediction - target|^2 + c^2) - c``, [B], the norm over all elements of an example.

    The squared error over 2c for errors well below ``c`` > 0, the norm itself well above (Song & Dhariwal 2023, section
    3.3, with c = 0.00054 sqrt(elements)).
    """
    square = (prediction.float() - target.float()).square().flatten(1).sum(1)
    return square / ((square + c * c).sqrt() + c)  # the same, without the difference of two nearly equal numbers


@dataclass(frozen=True)
class PseudoHuber(Penalty):
    """``sqrt(|e|^2 + c^2) - c`` of an example's error e: a large error counts by its distance, not by its square."""

    name: ClassVar[str] = "pseudo_huber"

    c: PositiveFloat = 0.00108
    """Where the square turns into the distance, over the root of the number of elements, greater than 0 (Song &
    Dhariwal 2023, for data of unit variance: twice their 0.00054)."""

    def rows(self, state: nn.Module, prediction: Tensor, target: Tensor, query: Query, own: RowError) -> Tensor:
        """Return the pseudo-Huber penalty, [B]; ``c`` grows with the root of the number of elements."""
        return pseudo_huber(prediction, target, self.c * math.sqrt(target[0].numel()))
