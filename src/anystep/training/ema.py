"""Moving averages of the parameters."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Ema:
    """An exponential moving average of a network's parameters and buffers, as a network of its own.

    ``decay`` is constant, or rises to its value as min(decay, (1 + n) / (10 + n)) over updates n with ``warmup``.
    """

    def __init__(self, network: nn.Module, decay: float, warmup: bool = True) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay = decay
        self.warmup = warmup

    def decay_at(self, update: int) -> float:
        """Return the decay of update n = 0, 1, ..."""
        return min(self.decay, (1 + update) / (10 + update)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self, network: nn.Module, update: int) -> None:
        """Move the average towards ``network``: ``average += (1 - decay) (network - average)``."""
        torch._foreach_lerp_(_floats(self.network.parameters()), _floats(network.parameters()), 1 - self.decay_at(update))
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)


def _floats(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [p.detach() for p in parameters]
