"""Guidance at every level, at the finest, or as an input: the shortcut model that learns every level exactly.

Nothing is trained: the model of the step 2^k / M is its own target (Frans et al. 2024, eq. 4), a function of the one
below it. In NumPy, without the library. `benchmarks/compounding.py` plots it.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

M, LEVELS = 128, 7
#: velocity at (x [n, D], t) of the class (True) or of the null label (False): what the network has at d = 0
Field = Callable[[np.ndarray, float, bool], np.ndarray]
#: where guidance is applied: to the half steps of every level, to those of the finest, or to the d = 0 velocity
Rule = Literal["all", "finest", "intrinsic"]


def average_velocity(
    field: Field, scale: float, rule: Rule, x: np.ndarray, t: float, label: bool, level: int = LEVELS
) -> np.ndarray:
    """Return s(x, t, 2^level / M), with ``scale`` built in by ``rule``; level 0 is d = 0. Null rows are not guided."""
    if level == 0:
        return guided(lambda label: field(x, t, label), scale if rule == "intrinsic" else 1, label)
    here = scale if rule == "all" or (rule == "finest" and level == 1) else 1

    def half(x: np.ndarray, t: float) -> np.ndarray:
        return guided(lambda label: average_velocity(field, scale, rule, x, t, label, level - 1), here, label)

    d = 2.0 ** (level - 1) / M
    a = half(x, t)
    b = half(x + d * a, t + d)
    return (a + b) / 2


def guided(s: Callable[[bool], np.ndarray], scale: float, label: bool) -> np.ndarray:
    """Return s_null + scale (s_label - s_null) of a labelled row, the plain velocity of a null row or at scale 1."""
    if not label or scale == 1:
        return s(label)
    null = s(False)
    return null + scale * (s(True) - null)


def euler(field: Field, scale: float, x: np.ndarray, steps: int = M) -> np.ndarray:
    """Return the average over [0, 1] of the velocity guided by ``scale``, by Euler steps of 1 / ``steps``."""
    at = x
    for n in range(steps):
        at = at + guided(lambda label, at=at, t=n / steps: field(at, t, label), scale, True) / steps
    return at - x


def ratios(field: Field, scale: float, rule: Rule, x: np.ndarray) -> list[float]:
    """Return |s_label - s_null| at t = 0 over what it is without guidance, d = 2/M, ..., 1/2, 1 (RMS over ``x``)."""
    found = []
    for level in range(1, LEVELS + 1):
        null = average_velocity(field, scale, rule, x, 0.0, False, level)
        with_it, without = (average_velocity(field, w, rule, x, 0.0, True, level) - null for w in (scale, 1))
        found.append(float(np.sqrt(np.square(with_it).mean() / np.square(without).mean())))
    return found


def affine(x: np.ndarray, t: float, label: bool) -> np.ndarray:
    """v = A x + b_label (1 + t): label and null share the linear part, which neither is normal nor commutes."""
    A = np.array([[-0.4, 1.1], [-0.7, 0.3]])
    b = np.array([1.0, -2.0]) if label else np.array([-0.2, 0.6])
    return x @ A.T + b * (1 + t)


def clusters(std: float, centre: float = 1.0) -> Field:
    """Return the exact velocity of data in two equal normal clusters at +-centre: the class is one, null is both."""

    def one(x: np.ndarray, t: float, mean: float) -> np.ndarray:
        variance = (1 - t) ** 2 + (t * std) ** 2
        return mean + (t * std**2 - (1 - t)) / variance * (x - t * mean)

    def field(x: np.ndarray, t: float, label: bool) -> np.ndarray:
        if label:
            return one(x, t, centre)
        odds = np.exp(-2 * x * t * centre / ((1 - t) ** 2 + (t * std) ** 2))  # of the other cluster
        share = 1 / (1 + odds)
        return share * one(x, t, centre) + (1 - share) * one(x, t, -centre)

    return field
