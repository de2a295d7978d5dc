"""Sampling: Algorithm 2 of Frans et al. 2024 for any budget, stochastic consistency sampling, interpolation of noises,
refinement.

Pure functions of their arguments.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from anystep.core.errors import UsageError
from anystep.core.fields import finite
from anystep.flow.condition import Condition, rows
from anystep.flow.guidance import guided_velocity
from anystep.flow.ladder import Schedule, Step, instantaneous_schedule, shortcut_schedule
from anystep.flow.network import Network
from anystep.flow.path import advance, data_from_velocity, interpolate

#: sees step n = 0, 1, ..., how long it was, and where it led
Callback = Callable[[int, Step, Tensor], None]
#: gives the fresh noise of step n = 0, 1, ...
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
) -> Tensor:
    """Carry ``noise`` [B, ...] to data by Euler steps whose size is its input d (Frans et al. 2024, Algorithm 2).

    ``steps`` is a budget, any integer of at least 1, that ``schedule`` turns into steps, or the explicit steps.
    ``guidance`` is the scale W (1: none), one for all steps or one a step; a step costs one forward pass where W = 1
    or the network takes W as an input, else two. ``callback(n, step, x)`` sees the state after step n, n = 0, 1, ...
    Same noise, same result.
    Raises ValueError for a budget below 1, guidance that is not finite or a list of another length than the schedule,
    or guidance of an unconditional network.
    """
    x, count, condition = noise, len(noise), prepared(network, condition)
    for n, (step, scale) in enumerate(_plan(steps, guidance, schedule)):
        t, d, length = noise.new_tensor([[step.t], [step.d], [step.length]], dtype=torch.float32).expand(3, count)
        x = advance(x, length, guided_velocity(network, x, t, d, condition, scale).to(x.dtype))
        if callback is not None:
            callback(n, step, x)
    return x


@torch.no_grad()
def sample_consistency(
    network: Network,
    noise: Tensor,
    *,
    steps: int | Schedule = 1,
    condition: Condition = None,
    guidance: float | Sequence[float] = 1.0,
    schedule: Callable[[int], Schedule] = instantaneous_schedule,
    callback: Callback | None = None,
    renoise: Renoise | None = None,
) -> Tensor:
    """Carry ``noise`` [B, ...] to data by jumps to the end, each but the last followed by fresh noise.

    ``x1hat = x + (1 - t) v(x, t)``, then ``x = t' x1hat + (1 - t') eps`` at the next step's time t', with
    ``eps = renoise(n)``, shaped like ``noise``, after step n = 0, 1, ...; the last step returns x1hat. The network is
    never asked at t = 1. ``callback(n, step, x)`` sees each x1hat. The rest as in `sample`.
    Raises ValueError as `sample` does, and for more than one step without ``renoise``.
    """
    plan = _plan(steps, guidance, schedule)
    x, count, condition = noise, len(noise), prepared(network, condition)
    for n, (step, scale) in enumerate(plan):
        t, d = noise.new_tensor([[step.t], [step.d]], dtype=torch.float32).expand(2, count)
        end = data_from_velocity(x, t, guided_velocity(network, x, t, d, condition, scale).to(x.dtype))
        if callback is not None:
            callback(n, step, end)
        if n + 1 == len(plan):
            return end
        if renoise is None:
            raise UsageError(f"{len(plan)} steps take fresh noise after each but the last: pass `renoise`")
        x = interpolate(renoise(n), end, torch.full_like(t, plan[n + 1][0].t))
    return noise


def prepared(network: Network, condition: Condition) -> Condition:
    """Return the condition as the network's optional ``given`` makes it, once for all steps."""
    given = getattr(network, "given", None)
    if given is None or condition is None:
        return condition
    made: Condition = given(condition)
    return made


def _plan(
    steps: int | Schedule, guidance: float | Sequence[float], schedule: Callable[[int], Schedule]
) -> list[tuple[Step, float]]:
    """Return each step with its guidance scale."""
    plan = list(steps) if isinstance(steps, Sequence) else schedule(steps)
    scales = [guidance] * len(plan) if isinstance(guidance, int | float) else list(guidance)
    for scale in scales:
        finite("guidance", scale)
    if len(scales) != len(plan):
        raise UsageError(f"guidance has {len(scales)} values for {len(plan)} steps: give one, or one a step")
    return list(zip(plan, scales, strict=True))


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
    """Draw the samples of index ``keep`` [k] again, from the same noise, with more steps: the same, sharper (Frans et
    al. 2024, section 5.2).

    ``noise`` [B, ...] and ``condition`` are those of the first draw; the rest as in `sample`. Returns [k, ...].
    """
    chosen = rows(condition, keep)
    return sample(network, noise[keep], steps=steps, condition=chosen, guidance=guidance, schedule=schedule)


def interpolate_noise(x_a: Tensor, x_b: Tensor, points: int) -> Tensor:
    """Return ``points`` variance-preserving mixtures ``n x_a + sqrt(1 - n^2) x_b`` of two noises (Frans et al. 2024,
    eq. 6).

    ``x_a``, ``x_b``: [...]; returns [points, ...], from x_b (n = 0) to x_a (n = 1). The angle, n = sin(phi), moves in
    equal steps. Raises ValueError for fewer than 2 points.
    """
    if points < 2:
        raise UsageError(f"points must be at least 2, got {points}")
    phi = torch.linspace(0, torch.pi / 2, points, device=x_a.device).reshape(-1, *[1] * x_a.ndim)
    return torch.sin(phi) * x_a + torch.cos(phi) * x_b
