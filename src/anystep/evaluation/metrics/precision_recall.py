"""Improved precision and recall (Kynkaanniemi et al. 2019): how much of one set lies among the other."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from anystep.core.fields import Checked
from anystep.evaluation.metrics.base import Kept, Metric
from anystep.evaluation.metrics.distances import distances, equal_numbers


@dataclass(frozen=True)
class Precision(Checked, Metric):
    """Fraction of samples that lie among real examples (eq. 1). Class means score 1: read it with recall.

    It has no floor: examples that are drawn from the reference lie on examples of the reference, and score 1.
    """

    title = "Precision"
    better = "higher"
    usual = frozenset({"picture", "vector"})
    needs = frozenset({"rows"})

    k: Annotated[int, Ge(1)] = 3
    """Which nearest neighbour the balls reach to."""

    @property
    def fewest(self) -> int:
        """More than k."""
        return self.k + 1

    def score(self, real: Kept, drawn: Kept, prepared: None) -> dict[str, float]:
        """Return the precision."""
        examples, samples = equal_numbers(real, drawn)
        return {"": covered(samples, examples, self.k)}


@dataclass(frozen=True)
class Recall(Precision):
    """Fraction of real examples that lie among the samples (eq. 2), whether these cover the data: sides exchanged.

    It has no floor: of examples drawn from the reference it shows mostly how many were drawn at least once.
    """

    title = "Recall"

    def score(self, real: Kept, drawn: Kept, prepared: None) -> dict[str, float]:
        """Return the recall."""
        examples, samples = equal_numbers(real, drawn)
        return {"": covered(examples, samples, self.k)}


def covered(points: Tensor, centres: Tensor, k: int) -> float:
    """Return the fraction of ``points`` [n, F] in the manifold of ``centres`` [m, F], m > k: in one of its `balls`."""
    reach = balls(centres, k, points)
    return sum(int((slab <= reach).any(1).sum()) for _, slab in distances(points, centres)) / len(points)


def balls(centres: Tensor, k: int, points: Tensor) -> Tensor:
    """Return the radius of a ball around each of ``centres`` [m, F], to its k-th nearest neighbour among the others.

    It is larger by the rounding of distances to ``points`` [n, F]: a point on the surface is inside.
    """
    radii = torch.empty(len(centres), dtype=centres.dtype)
    for rows, slab in distances(centres, centres):
        slab[torch.arange(rows.stop - rows.start), torch.arange(rows.start, rows.stop)] = torch.inf
        radii[rows] = slab.kthvalue(k, dim=1).values
    noise = 1e-13 * max(float(centres.square().sum(1).max()), float(points.square().sum(1).max()))
    return torch.sqrt(radii.square() + noise)
