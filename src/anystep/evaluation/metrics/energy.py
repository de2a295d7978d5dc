"""Energy distance between two sets of rows."""

from dataclasses import dataclass

from numpy.typing import ArrayLike
from torch import Tensor

from anystep.evaluation.metrics.base import Kept, Metric, equal_numbers
from anystep.evaluation.metrics.distances import distances, pair


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


def energy_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Return ``2 E|X - Y| - E|X - X'| - E|Y - Y'|`` of two samples [n, F], [m, F] (Szekely and Rizzo 2013, eq. 5).

    The V-statistic: never negative, zero for equal sets only; two samples of one distribution are about
    ``E|X - X'| (1/n + 1/m)`` apart. In the units of the features. Raises ValueError for an empty set.
    """
    a, b = pair(x, y)
    if min(len(a), len(b)) == 0:
        raise ValueError(f"energy distance needs rows on both sides, got {len(a)} and {len(b)}")

    def mean(p: Tensor, q: Tensor) -> float:
        return sum(float(slab.sum()) for _, slab in distances(p, q)) / (len(p) * len(q))

    return max(0.0, 2 * mean(a, b) - mean(a, a) - mean(b, b))
