"""Energy distance (Szekely and Rizzo 2013, eq. 5)."""

from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from anystep.evaluation.metrics.base import Kept, Metric
from anystep.evaluation.metrics.distances import distances, equal_numbers


@dataclass(frozen=True)
class Energy(Metric):
    """Energy distance between equal numbers of samples and real examples."""

    title = "Energy distance"
    better = "lower"
    distance = True
    usual = frozenset({"vector"})
    needs = frozenset({"rows"})

    def score(self, real: Kept, drawn: Kept, prepared: None) -> dict[str, float]:
        """Return the distance."""
        return {"": energy_distance(*equal_numbers(real, drawn))}


def energy_distance(x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> float:
    """Return ``2 E|X - Y| - E|X - X'| - E|Y - Y'|`` of two sets [n, F], [m, F], in the units of the features.

    The V-statistic: never negative, zero for equal sets only; two sets of one distribution are about
    ``E|X - X'| (1/n + 1/m)`` apart.
    """
    a, b = torch.as_tensor(x).double(), torch.as_tensor(y).double()

    def mean(p: Tensor, q: Tensor) -> float:
        return sum(float(slab.sum()) for _, slab in distances(p, q)) / (len(p) * len(q))

    return max(0.0, 2 * mean(a, b) - mean(a, a) - mean(b, b))
