"""The straight path between noise and data, its velocity, and its two ends (Frans et al. 2024, eq. 1 and 3)."""

from torch import Tensor


def expand(t: Tensor, like: Tensor) -> Tensor:
    """Return ``t`` [B] with as many trailing axes of length 1 as ``like`` [B, ...] has."""
    return t.reshape(-1, *[1] * (like.ndim - 1)).to(like.dtype)


def interpolate(x0: Tensor, x1: Tensor, t: Tensor, sigma_min: float = 0.0) -> Tensor:
    """Return ``x_t = (1 - (1 - sigma_min) t) x0 + t x1`` (Frans et al. 2024, eq. 1; their ``sigma_min`` is 1e-5)."""
    t = expand(t, x1)
    return (1 - (1 - sigma_min) * t) * x0 + t * x1


def velocity(x0: Tensor, x1: Tensor, sigma_min: float = 0.0) -> Tensor:
    """Return ``dx_t / dt = x1 - (1 - sigma_min) x0``, the velocity of the straight path (Frans et al. 2024, eq. 1)."""
    return x1 - (1 - sigma_min) * x0


def advance(x_t: Tensor, step: Tensor, v: Tensor) -> Tensor:
    """Return ``x_{t + step} = x_t + step * v`` (Frans et al. 2024, eq. 3); ``step`` is [B]."""
    return x_t + expand(step, x_t) * v


def data_from_velocity(x_t: Tensor, t: Tensor, v: Tensor) -> Tensor:
    """Return the data end that ``v`` points to: ``x1 = x_t + (1 - t) v``."""
    return x_t + (1 - expand(t, x_t)) * v


def velocity_to_data(x_t: Tensor, t: Tensor, x1: Tensor) -> Tensor:
    """Return the velocity that leads straight to the data end ``x1``: ``v = (x1 - x_t) / (1 - t)``, for t < 1."""
    return (x1 - x_t) / (1 - expand(t, x_t))
