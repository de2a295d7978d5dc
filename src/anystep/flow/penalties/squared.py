"""The mean squared error, the error of most methods."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from anystep.flow.penalties.base import Penalty, RowError
from anystep.flow.query import Query


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the squared error, mean over the elements of each example, [B], in float32 whatever the inputs' type."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)


@dataclass(frozen=True)
class Squared(Penalty):
    """The mean squared error over an example's elements."""

    name: ClassVar[str] = "squared"

    def rows(self, state: nn.Module, prediction: Tensor, target: Tensor, query: Query, own: RowError) -> Tensor:
        """Return the mean squared error, [B]."""
        return squared_error(prediction, target)
