"""Kernel distance, the squared maximum mean discrepancy (Binkowski et al. 2018)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from anystep.evaluation.metrics.base import Kept, Metric
from anystep.evaluation.metrics.distances import SLAB


@dataclass(frozen=True)
class Kernel(Metric):
    """Squared discrepancy of the kernel (x y / F + 1)^3, of Inception features: KID.

    It is unbiased, so it can be compared between numbers of samples, and is around 0, below it too, for equal
    distributions. All rows are used at once, not subsets of 1,000 as elsewhere: the mean is the same, without chance.
    """

    title = "KID"
    better = "lower"
    distance = True
    needs = frozenset({"rows"})

    def score(self, real: Kept, drawn: Kept, prepared: None) -> dict[str, float]:
        """Return the distance."""
        x, y = torch.from_numpy(real.rows), torch.from_numpy(drawn.rows)
        return {"": kernel_distance(x, y)}


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """Return the unbiased estimate of E k(x, x') + E k(y, y') - 2 E k(x, y) for x float64 [n, F], y [m, F].

    x' is another example than x. The kernel is (x y / F + 1)^3.
    """
    within = [(total(a, a) - own(a)) / (len(a) * (len(a) - 1)) for a in (x, y)]
    return sum(within) - 2 * total(x, y) / (len(x) * len(y))


def total(x: Tensor, y: Tensor) -> float:
    """Return the sum of the kernel over all pairs, a slab of about 64 MiB at a time."""
    height = max(1, SLAB // len(y))
    slabs = (x[start : start + height] @ y.T for start in range(0, len(x), height))
    return math.fsum(float(kernel(slab, x.shape[1]).sum()) for slab in slabs)


def own(x: Tensor) -> float:
    """Return the sum of the kernel of each example with itself."""
    return float(kernel(x.square().sum(1), x.shape[1]).sum())


def kernel(products: Tensor, features: int) -> Tensor:
    """Return the kernel of scalar products of ``features`` numbers."""
    return (products / features + 1) ** 3
