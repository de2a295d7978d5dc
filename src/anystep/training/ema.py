"""Moving averages of the parameters: of constant decay, and of profiles whose width can be chosen after training."""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from anystep.run.averages import exponent

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
        return min(self.decay, warmed(update)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self, network: nn.Module, update: int) -> None:
        """Move the average towards ``network``: ``average += (1 - decay) (network - average)``."""
        mine: list[Tensor] = list(self.network.parameters())
        theirs: list[Tensor] = list(network.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - self.decay_at(update))
        for buffer, theirs_now in zip(self.network.buffers(), network.buffers(), strict=True):
            buffer.copy_(theirs_now)


def warmed(update: int) -> float:
    """Return the decay that the warm-up of `Ema` allows at update n = 0, 1, ...: that of a power average of gamma 8."""
    return (1 + update) / (10 + update)


class PowerEma(Ema[Module]):
    """An average whose profile is a power of the time of training (Karras et al. 2024, section 3.1).

    After t updates the parameters after update tau = 1 ... t weigh ``tau^(gamma + 1) - (tau - 1)^(gamma + 1)``, over
    their sum ``t^(gamma + 1)``: a profile ``tau^gamma`` whatever the length of the run, so that the start is forgotten.
    ``sigma_rel`` is the profile's standard deviation over t: 0.05 and 0.1 in the paper.
    """

    def __init__(self, network: Module, sigma_rel: float) -> None:
        super().__init__(network, decay=1.0, warmup=False)
        self.sigma_rel = sigma_rel
        self.gamma = exponent(sigma_rel)

    def decay_at(self, update: int) -> float:
        """Return ``(1 - 1/t)^(gamma + 1)``, t = update + 1: 0 at the first, which starts the average."""
        return float((update / (update + 1)) ** (self.gamma + 1))
