"""What a penalty is: how far off each prediction is, and what it learns about that from one update to the next."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from anystep.core.registry import Option
from anystep.flow.query import Query

#: error(prediction, target, query): how far each prediction is off, [B]
RowError = Callable[[Tensor, Tensor, Query], Tensor]


class LossPart(Option, ABC):
    """A part of the loss that may have a state. Subclasses are frozen dataclasses whose fields are their options.

    The state is an ``nn.Module``: its buffers are statistics, its parameters are learned. Every micro-batch of an
    update is charged with the state that the updates before it left.
    """

    def start(
        self, shape: tuple[int, ...], tags: Sequence[str], marked: Sequence[str], device: torch.device
    ) -> nn.Module:
        """Return the state that a run starts with. Raises UsageError for examples that this is not defined for.

        ``shape``: of one example in network space. ``tags``: names of the kinds of row, which a row's tag is an index
        of. ``marked``: those of them that a weight acts on. Statistics are float64 on the CPU, parameters on
        ``device``.
        """
        return nn.Module()

    def observe(self, state: nn.Module, total: dict[str, Tensor]) -> None:
        """Take an applied update into the state: its `statistics`, summed, float64 on the CPU."""


class Penalty(LossPart, section="penalty"):
    """How far off a prediction is, one value per row."""

    #: whether it stands in place of the objective's own error, which must be the squared one then
    replaces_error: ClassVar[bool] = True

    @abstractmethod
    def rows(
        self, state: nn.Module, prediction: Tensor, target: Tensor, query: Query, tag: Tensor, own: RowError
    ) -> Tensor:
        """Return how far ``prediction`` [B, ...] is off ``target``, [B]; ``own`` is the objective's error."""

    def statistics(
        self, state: nn.Module, prediction: Tensor, target: Tensor, query: Query, tag: Tensor
    ) -> dict[str, Tensor]:
        """Return sums and counts over these rows, which `observe` gets for the whole update. Without a gradient."""
        return {}


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
