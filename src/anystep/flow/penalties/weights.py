"""How much each row counts: nothing to add, or a factor that depends on how far off the row is."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from anystep.flow.penalties.base import LossPart
from anystep.flow.progress import Progress
from anystep.flow.query import Query


class Weight(LossPart):
    """How much each row's penalty counts. The log shows the loss without it."""

    @abstractmethod
    def rows(
        self, state: nn.Module, rows: Tensor, raw: Tensor, query: Query, tag: Tensor, progress: Progress
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
        self, state: nn.Module, rows: Tensor, raw: Tensor, query: Query, tag: Tensor, progress: Progress
    ) -> Tensor:
        """Return ``rows`` as they are."""
        return rows
