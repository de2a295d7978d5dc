"""What penalties and weights have in common, and the default penalty: the objective's own error."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from anystep.core.registry import Option
from anystep.flow.query import Query

#: error(prediction, target, query): how far off each prediction is, [B]
RowError = Callable[[Tensor, Tensor, Query], Tensor]


class LossPart(Option, ABC):
    """A part of the loss that may have a state. Subclasses are frozen dataclasses whose fields are their options.

    The state is an ``nn.Module``: its buffers are statistics, its parameters are learned. It changes between updates
    only: every micro-batch of an update has the same state.
    """

    def start(
        self, shape: tuple[int, ...], tags: Sequence[str], marked: Sequence[str], device: torch.device
    ) -> nn.Module:
        """Return the initial state of a run. Raises UsageError for examples that this is not defined for.

        ``shape``: of one example in network space. ``tags``: names of the kinds of example; an example's tag is an
        index into them. ``marked``: the tags that a weight acts on. Statistics are float64 on the CPU, parameters on
        ``device``.
        """
        return nn.Module()

    def observe(self, state: nn.Module, total: dict[str, Tensor]) -> None:
        """Update the state with the sums of an applied update's `statistics`, float64 on the CPU."""


class Penalty(LossPart, section="penalty"):
    """How far off a prediction is, one value per example."""

    #: whether it replaces the error of the objective, which must be the squared one then
    replaces_error: ClassVar[bool] = True

    @abstractmethod
    def rows(self, state: nn.Module, prediction: Tensor, target: Tensor, query: Query, own: RowError) -> Tensor:
        """Return how far ``prediction`` [B, ...] is off ``target``, [B]; ``own`` is the objective's error."""

    def statistics(self, state: nn.Module, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return sums and counts over a micro-batch, without a gradient; `observe` gets those of the whole update."""
        return {}


@dataclass(frozen=True)
class Own(Penalty):
    """The error of the objective: the mean squared error for most methods."""

    name: ClassVar[str] = "own"
    replaces_error: ClassVar[bool] = False

    def rows(self, state: nn.Module, prediction: Tensor, target: Tensor, query: Query, own: RowError) -> Tensor:
        """Return the error of the objective, [B]."""
        return own(prediction, target, query)


def update_mean(mean: Tensor, new: Tensor, decay: float) -> None:
    """Update a running mean in place. It is 0 before the first value, which it then equals."""
    mean.copy_(torch.lerp(mean, new, 1 - decay) if mean.any() else new)
