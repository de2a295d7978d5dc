"""Sampling: Algorithm 2 of Frans et al. 2024 for any number of steps, stochastic consistency sampling, refinement, and
interpolation of noises.

Pure functions of their arguments.
"""

from collections.abc import Callable, Sequence
from math import isfinite

import torch
from torch import Tensor

from anystep.core.errors import UsageError
from anystep.core.fields import require
from anystep.flow.condition import Condition, rows
from anystep.flow.guidance import guided_velocity
from anystep.flow.ladder import Schedule, Step, shortcut_schedule
from anystep.flow.path import advance, data_from_velocity, interpolate
from anystep.flow.query import Network

#: gets n = 0, 1, ..., step n, and the state after it
Callback = Callable[[int, Step, Tensor], None]
#: returns the new noise after step n = 0, 1, ...
Renoise = Callable[[int], Tensor]


@torch.no_grad()
def sample(
    network: Network,
    noise: Tensor,
    *,
    steps: int | Schedule = 1,
    condition: Condition = None,
    guidance: float | Sequence[float] = 1.0,
    schedule: Callable[[int], Schedule] = shortcut_schedule,
    callback: Callback | None = None,
    renoise: Renoise | None = None,
) -> Tensor:
    """Integrate from ``noise`` [B, ...] to data by Euler steps, whose size is the input d (Frans et al. 2024, Alg. 2).

    ``steps`` is a number of at least 1, which ``schedule`` turns into steps, or the explicit steps. ``guidance`` is the
    scale W (1: none), one for all steps or one per step; a step costs one forward pass where W = 1 or the network takes
    W as an input, else two. ``callback(n, step, x)`` gets the state after step n = 0, 1, ...

    With ``renoise`` every step jumps to the data instead, ``x1hat = x + (1 - t) v(x, t)``, and all but the last are
    followed by new noise: ``x = t' x1hat + (1 - t') renoise(n)`` at the time t' of the next step. This is stochastic
    sampling of consistency models (Song et al. 2023, Alg. 1); the callback gets each x1hat.

    The same noise gives the same result. Raises ValueError for fewer than one step, guidance that is not finite or has
    another length than the schedule, and guidance of an unconditional network.
    """
    plan = list(steps) if isinstance(steps, Sequence) else schedule(steps)
    scales = [guidance] * len(plan) if isinstance(guidance, int | float) else list(guidance)
    if len(scales) != len(plan):
        raise UsageError(f"guidance has {len(scales)} values for {len(plan)} steps: give one, or one per step")
    for scale in scales:
        require(isfinite(scale), "guidance", scale, "finite")
    given = getattr(network, "given", None)
    if given is not None and condition is not None:
        condition = given(condition)
    x = noise
    for n, (step, scale) in enumerate(zip(plan, scales, strict=True)):
        t, d, length = noise.new_tensor([[step.t], [step.d], [step.length]], dtype=torch.float32).expand(3, len(noise))
        v = guided_velocity(network, x, t, d, condition, scale).to(x.dtype)
        x = advance(x, length, v) if renoise is None else data_from_velocity(x, t, v)
        if callback is not None:
            callback(n, step, x)
        if renoise is not None and n + 1 < len(plan):
            x = interpolate(renoise(n), x, torch.full_like(t, plan[n + 1].t))
    return x


def refine(
    network: Network,
    noise: Tensor,
    keep: Tensor,
    *,
    steps: int | Schedule,
    condition: Condition = None,
    guidance: float | Sequence[float] = 1.0,
    schedule: Callable[[int], Schedule] = shortcut_schedule,
) -> Tensor:
    """Generate the samples of index ``keep`` [k] again, from the same noise, with more steps: the same, but sharper
    (Frans et al. 2024, section 5.2).

    ``noise`` [B, ...] and ``condition`` are those of the first samples; the rest as in `sample`. Returns [k, ...].
    """
    chosen = rows(condition, keep)
    return sample(network, noise[keep], steps=steps, condition=chosen, guidance=guidance, schedule=schedule)


def interpolate_noise(x_a: Tensor, x_b: Tensor, points: int) -> Tensor:
    """Return ``points`` variance-preserving mixtures ``n x_a + sqrt(1 - n^2) x_b`` of two noises (Frans et al. 2024,
    eq. 6).

    ``x_a``, ``x_b``: [...]; returns [points, ...], from x_b (n = 0) to x_a (n = 1), in equal steps of the angle phi,
    n = sin(phi). Raises ValueError for fewer than 2 points.
    """
    require(points >= 2, "points", points, "at least 2")
    phi = torch.linspace(0, torch.pi / 2, points, device=x_a.device).reshape(-1, *[1] * x_a.ndim)
    return torch.sin(phi) * x_a + torch.cos(phi) * x_b
