"""The objective's own error."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from anystep.flow.penalties.base import Penalty, RowError
from anystep.flow.query import Query


@dataclass(frozen=True)
class Own(Penalty):
    """The objective's own error: the mean squared error for most methods."""

    name: ClassVar[str] = "own"
    replaces_error: ClassVar[bool] = False

    def rows(
        self, state: nn.Module, prediction: Tensor, target: Tensor, query: Query, tag: Tensor, own: RowError
    ) -> Tensor:
        """Return the objective's error, [B]."""
        return own(prediction, target, query)
