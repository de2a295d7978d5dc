"""Moving averages of the parameters."""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class Ema(Generic[Module]):
    """An exponential moving average of a network's parameters and buffers, as a network of its own.

    ``decay`` is constant, or rises to its value as min(decay, (1 + n) / (10 + n)) over updates n with ``warmup``.
    """

    def __init__(self, network: Module, decay: float, warmup: bool = True) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay = decay
        self.warmup = warmup

    def decay_at(self, update: int) -> float:
        """Return the decay of update n = 0, 1, ..."""
        return min(self.decay, (1 + update) / (10 + update)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self, network: nn.Module, update: int) -> None:
        """Move the average towards ``network``: ``average += (1 - decay) (network - average)``."""
        mine: list[Tensor] = list(self.network.parameters())
        theirs: list[Tensor] = list(network.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - self.decay_at(update))
        for buffer, theirs_now in zip(self.network.buffers(), network.buffers(), strict=True):
            buffer.copy_(theirs_now)
