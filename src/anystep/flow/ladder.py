"""Step sizes: which (t, d) are trained, and which steps a number of sampling steps becomes.

With ``M`` smallest steps, step sizes are ``d in {1/M, ..., 1/2, 1}`` (Frans et al. 2024, section 3.1, M = 128). A
*level* j counts the self-consistency targets from the finest: at level j two half steps of ``2^j / M`` are joined into
one step of ``2^(j+1) / M``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Annotated, Literal

import torch
from torch import Tensor

from anystep.core.fields import Checked, PowerOfTwo, require

Order = Literal["small_last", "small_first"]


@dataclass(frozen=True)
class Ladder(Checked):
    """The step-size levels of ``M`` smallest steps. Raises ValueError unless ``M`` is a power of two of at least 2."""

    M: Annotated[int, PowerOfTwo] = 128

    @property
    def levels(self) -> int:
        """Number of self-consistency levels, ``log2 M``."""
        return self.M.bit_length() - 1

    def half_step(self, level: Tensor) -> Tensor:
        """Return the half step's length ``2^j / M``, float32 shaped like ``level``."""
        return torch.exp2(level.float()) / self.M

    def equal_share(self, rows: int) -> Tensor:
        """Return the levels of ``rows`` self-consistency examples, int64 [rows]: equally many each, the rest at d = 1.

        Levels alternate, finest first, so that any contiguous part of the batch has them all. Count on the global
        batch: with fewer examples than levels only d = 1 is trained.
        """
        level = torch.arange(rows) % self.levels
        level[rows - rows % self.levels :] = self.levels - 1
        return level

    def large_share(self, rows: int) -> Tensor:
        """Return levels as `equal_share` does, of which a quarter each are d = 1 and d = 1/2, the rest the finer ones.

        This is `bootstrap_dt_bias` of the code of Frans et al. 2024. With M < 8 there are no finer levels: all equally.
        """
        if self.levels < 3:
            return self.equal_share(rows)
        level = torch.arange(rows) // 2 % (self.levels - 2)
        level[1::4], level[3::4] = self.levels - 2, self.levels - 1
        return level

    def index(self, d: Tensor) -> Tensor:
        """Return the ``log2`` step encoding, ``log2(1/d)``, float32: 0 for d = 1, ``log2 M`` for d = 1/M and d = 0."""
        return -torch.log2(d.float().clamp(min=1 / self.M))


@dataclass(frozen=True)
class Step:
    """One sampling step of ``length`` from time ``t``; ``d`` is the network's input (0: the instantaneous velocity)."""

    t: float
    length: float
    d: float


Schedule = Sequence[Step]


def shortcut_schedule(steps: int, ladder: Ladder | None = None, order: Order = "small_last") -> Schedule:
    """Return the steps of Frans et al. 2024, Algorithm 2: dyadic ones, the size of each an input of the network.

    Each starts at a multiple of its size. Of ``K = 2^floor(log2 steps)`` equal steps ``steps - K`` are halved: the last
    ones (``small_last``: the small steps end at the data) or the first ones (``small_first``). N = 3: 1/2, 1/4, 1/4.
    Steps of ``1/M`` or smaller are evaluated at d = 0, as in training; beyond ``M`` steps this is plain Euler.
    """
    _check_steps(steps)
    ladder = ladder or Ladder()
    if steps > ladder.M:
        return instantaneous_schedule(steps)
    base = 1 << (int(steps).bit_length() - 1)
    halved = steps - base
    whole, halves = [1 / base] * (base - halved), [0.5 / base] * (2 * halved)
    result, t = [], 0.0
    for length in whole + halves if order == "small_last" else halves + whole:
        result.append(Step(t, length, d=length if length > 1 / ladder.M else 0.0))
        t += length
    return result


def instantaneous_schedule(steps: int, start: float = 0.0) -> Schedule:
    """Return ``steps`` equal Euler steps at d = 0, the instantaneous velocity, from ``start`` to 1: flow matching's."""
    _check_steps(steps)
    whole = 1 - start
    return [Step(start + whole * (n / steps), whole * (1 / steps), 0.0) for n in range(steps)]


def equal_schedule(steps: int, start: float = 0.0) -> Schedule:
    """Return ``steps`` equal steps from ``start`` to 1, each with its length as d, which takes any value."""
    return [replace(step, d=step.length) for step in instantaneous_schedule(steps, start)]


def _check_steps(steps: int) -> None:
    integer = isinstance(steps, Integral) and not isinstance(steps, bool)
    require(integer and steps >= 1, "steps", steps, "an integer of at least 1")


TimeDistribution = Literal["discrete", "uniform", "logit_normal"]


def flow_time(uniform: Tensor, distribution: TimeDistribution, M: int) -> Tensor:
    """Turn uniform [0, 1) numbers into times of flow examples.

    ``discrete``: multiples of 1/M in [0, 1 - 1/M] ("Discrete time sampling", Frans et al. 2024, section 3.1);
    ``uniform``: U(0, 1); ``logit_normal``: sigmoid of a standard normal, more examples at medium noise.
    """
    if distribution == "discrete":
        return (uniform * M).floor() / M
    if distribution == "uniform":
        return uniform
    return torch.sigmoid(torch.special.ndtri(uniform.clamp(1e-7, 1 - 1e-7)))
