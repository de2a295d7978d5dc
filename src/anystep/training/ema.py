"""Exponential moving averages (EMAs) of the parameters: of constant decay, and of power-function profiles."""

import copy

import torch
from torch import Tensor, nn

from anystep.run.averages import exponent


class Ema:
    """An EMA of a network's parameters, as a separate network; buffers are copied.

    ``decay`` is constant, or with ``warmup`` min(decay, (1 + n) / (10 + n)) at update n = 0, 1, ...
    """

    def __init__(self, network: nn.Module, decay: float, warmup: bool = True) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay = decay
        self.warmup = warmup

    def decay_at(self, update: int) -> float:
        """Return the decay of update n = 0, 1, ..."""
        return min(self.decay, warmup_decay(update)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self, network: nn.Module, update: int) -> None:
        """Move the average towards ``network``: ``average += (1 - decay) (network - average)``."""
        average: list[Tensor] = list(self.network.parameters())
        torch._foreach_lerp_(average, list(network.parameters()), 1 - self.decay_at(update))
        for buffer, latest in zip(self.network.buffers(), network.buffers(), strict=True):
            buffer.copy_(latest)


def warmup_decay(update: int) -> float:
    """Return the largest decay that the warm-up of `Ema` allows at update n = 0, 1, ...: a power EMA of gamma 8."""
    return (1 + update) / (10 + update)


class PowerEma(Ema):
    """An EMA whose profile is a power of the training time (Karras et al. 2024, section 3.1).

    After t updates the weight of the parameters after update tau = 1 ... t is ``tau^(gamma + 1) - (tau - 1)^(gamma +
    1)`` over their sum ``t^(gamma + 1)``: a profile ``tau^gamma``, whatever the length of the run. Its standard
    deviation over t is ``sigma_rel``, 0.05 and 0.1 in the paper.
    """

    def __init__(self, network: nn.Module, sigma_rel: float) -> None:
        super().__init__(network, decay=1.0, warmup=False)
        self.gamma = exponent(sigma_rel)

    def decay_at(self, update: int) -> float:
        """Return ``(1 - 1/t)^(gamma + 1)``, t = update + 1: 0 at the first, which starts the average."""
        return float((update / (update + 1)) ** (self.gamma + 1))
