"""The dyadic ladder of step sizes: which (t, d) are trained, and how a sampling budget becomes steps.

The ladder of ``M`` smallest steps holds ``d in {1/M, ..., 1/2, 1}`` (Frans et al. 2024, section 3.1, M = 128). A
*level* j counts from the finest self-consistency step: at level j two half steps of ``2^j / M`` are joined into one
step of ``2^(j+1) / M``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Annotated, Literal

import torch
from torch import Tensor

from anystep.core.errors import UsageError
from anystep.core.fields import Checked, PowerOfTwo

Order = Literal["small_last", "small_first"]


@dataclass(frozen=True)
class Ladder(Checked):
    """A dyadic ladder with ``M`` smallest steps.

    Raises ValueError unless ``M`` is a power of two of at least 2.
    """

    M: Annotated[int, PowerOfTwo] = 128

    @property
    def levels(self) -> int:
        """Number of self-consistency levels, ``log2 M``."""
        return self.M.bit_length() - 1

    def half_step(self, level: Tensor) -> Tensor:
        """Return the half step's length ``2^j / M``, float32 shaped like ``level``."""
        return torch.exp2(level.float()) / self.M

    def equal_share(self, rows: int) -> Tensor:
        """Return the level of each of ``rows`` self-consistency rows: an equal share each, the remainder at d = 1.

        Levels alternate, finest first, so that any contiguous part of the batch holds them all. [R] gives the same
        share; it must be counted on the global batch (fewer rows than levels train d = 1 only).
        """
        level = torch.arange(rows) % self.levels
        level[rows - rows % self.levels :] = self.levels - 1
        return level

    def index(self, d: Tensor) -> Tensor:
        """Return the ``log2`` step encoding, ``log2(1/d)``, float32: 0 for d = 1, ``log2 M`` for d = 1/M and d = 0."""
        return -torch.log2(d.float().clamp(min=1 / self.M))


@dataclass(frozen=True)
class Step:
    """One sampling step: from time ``t`` advance by ``length``; the network is told ``d`` (0: instantaneous)."""

    t: float
    length: float
    d: float


Schedule = Sequence[Step]


def _check(steps: int) -> None:
    if isinstance(steps, bool) or not isinstance(steps, Integral) or steps < 1:
        raise UsageError(f"steps must be an integer of at least 1, got {steps!r}")


def dyadic_lengths(steps: int, order: Order = "small_last") -> list[float]:
    """Split [0, 1] into ``steps`` dyadic steps, each starting at a multiple of its own size.

    For ``K = 2^floor(log2 steps)``, ``K`` equal steps are made and ``steps - K`` of them are halved: the last ones
    (``small_last``: the small steps end at the data) or the first ones (``small_first``). N = 3: 1/2, 1/4, 1/4.
    """
    _check(steps)
    base = 1 << (int(steps).bit_length() - 1)
    halved = steps - base
    whole, halves = [1 / base] * (base - halved), [0.5 / base] * (2 * halved)
    return whole + halves if order == "small_last" else halves + whole


def shortcut_schedule(steps: int, ladder: Ladder | None = None, order: Order = "small_last") -> Schedule:
    """Return Algorithm 2 of Frans et al. 2024 for any budget: dyadic steps, the size of each an input of the network.

    Steps of ``1/M`` or smaller are asked for as d = 0, as in training; beyond ``M`` steps this is plain Euler.
    """
    _check(steps)
    ladder = ladder or Ladder()
    if steps > ladder.M:
        return instantaneous_schedule(steps)
    result, t = [], 0.0
    for length in dyadic_lengths(steps, order):
        result.append(Step(t, length, d=length if length > 1 / ladder.M else 0.0))
        t += length
    return result


def instantaneous_schedule(steps: int, start: float = 0.0) -> Schedule:
    """Return ``steps`` equal Euler steps at d = 0, the instantaneous velocity, from ``start`` to 1: flow matching's."""
    _check(steps)
    whole = 1 - start
    return [Step(start + whole * (n / steps), whole * (1 / steps), 0.0) for n in range(steps)]


def equal_schedule(steps: int, start: float = 0.0) -> Schedule:
    """Return ``steps`` equal steps from ``start`` to 1, each told its own length: d takes any value."""
    return [replace(step, d=step.length) for step in instantaneous_schedule(steps, start)]


TimeLaw = Literal["discrete", "uniform", "logit_normal"]


def flow_time(uniform: Tensor, law: TimeLaw, M: int) -> Tensor:
    """Turn uniform [0, 1) draws into times of flow rows.

    ``discrete``: multiples of 1/M in [0, 1 - 1/M] ("Discrete time sampling", Frans et al. 2024, section 3.1);
    ``uniform``: U(0, 1); ``logit_normal``: sigmoid of a standard normal, more rows at medium noise.
    """
    if law == "discrete":
        return (uniform * M).floor() / M
    if law == "uniform":
        return uniform
    return torch.sigmoid(torch.special.ndtri(uniform.clamp(1e-7, 1 - 1e-7)))
