"""Other papers' conventions <-> ours: the variance-preserving path, EDM's sigma. Pure functions.

Ours: ``x_t = (1 - t) x0 + t x1`` with noise ``x0`` at t = 0. Any path ``a x1 + b x0`` is ours at ``t = a / (a + b)``,
scaled by ``a + b``; so other papers' networks predict our velocities, and their samplers are our Euler steps.
"""

from functools import cache

import torch
from torch import Tensor

from anystep.flow.path import expand

#: noise levels of the variance-preserving path, tau = 0 (least noise) ... 999 (DDPM, DiT)
VP_LEVELS = 1000


def vp_alpha_bar() -> Tensor:
    """Return ``abar = prod (1 - beta)`` of every level, float64 [1000] on the CPU: x_tau has data ``sqrt(abar) x1``."""
    beta = torch.linspace(1e-4, 0.02, VP_LEVELS, dtype=torch.float64, device="cpu")
    return torch.cumprod(1 - beta, 0)


@cache
def vp_times() -> Tensor:
    """Return every level's ``t = a / (a + b)``, float64 [1000], falling; ``a = sqrt(abar)``, ``b = sqrt(1 - abar)``."""
    a, b = vp_alpha_bar().sqrt(), (1 - vp_alpha_bar()).sqrt()
    return a / (a + b)


def vp_time(tau: int) -> float:
    """Return the straight path's time of level ``tau`` in 0 ... 999; -1, where diffusion ends, is the data: t = 1."""
    return 1.0 if tau == -1 else float(vp_times()[tau])


#: time of the noisiest level, about 0.0063: the variance-preserving path has nothing before it
VP_START = vp_time(VP_LEVELS - 1)


def vp_scale(t: Tensor) -> Tensor:
    """Return ``a + b = 1 / sqrt(t^2 + (1 - t)^2)``, shaped like ``t``; ``a = t (a + b)``, ``b = (1 - t) (a + b)``."""
    return (t.square() + (1 - t).square()).rsqrt()


def to_vp(x_t: Tensor, t: Tensor) -> Tensor:
    """Return ``x_tau = (a + b) x_t``, which has variance 1 if the data has; ``t``: [B]."""
    return x_t * expand(vp_scale(t), x_t)


def from_vp(x_tau: Tensor, t: Tensor) -> Tensor:
    """Return ``x_t = x_tau / (a + b)``; ``t``: [B]."""
    return x_tau / expand(vp_scale(t), x_tau)


def velocity_from_noise(x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Return ``v = (x_t - noise) / t``: the velocity of a network that predicts the noise in ``x_t``. ``t``: [B].

    Times before `VP_START` count as that. An error of ``noise`` is multiplied by 1 / t, up to 158; the rounding of
    float32 alone gives up to 1e-4 there.
    """
    return (x_t - noise) / expand(t.clamp(min=VP_START), x_t)


def time_from_sigma(sigma: Tensor) -> Tensor:
    """Return our time of EDM's ``x_sigma = x1 + sigma x0 = x_t / t``: ``t = 1 / (1 + sigma)``."""
    return 1 / (1 + sigma)
