"""Improved precision and recall: how much of one set lies among the other."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from numpy.typing import ArrayLike
from torch import Tensor

from anystep.core.fields import Checked
from anystep.evaluation.metrics.base import Kept, Metric, equal_numbers
from anystep.evaluation.metrics.distances import distances, pair


@dataclass(frozen=True)
class _Neighbours(Checked, Metric):
    """What precision and recall have in common; the distances between all rows are computed once for both."""

    better = "higher"
    usual = frozenset({"picture", "vector"})
    needs = frozenset({"rows"})

    k: Annotated[int, Ge(1)] = 3
    """Which nearest neighbour the balls reach to."""

    @property
    def fewest(self) -> int:
        """More than k."""
        return self.k + 1

    def both(self, real: Kept, drawn: Kept) -> "PrecisionRecall":
        """Return precision and recall of equal numbers of rows."""
        found: PrecisionRecall = drawn.once(
            ("precision_recall", real, self.k), lambda: precision_recall(*equal_numbers(real, drawn), self.k)
        )
        return found


@dataclass(frozen=True)
class Precision(_Neighbours):
    """Fraction of samples that lie among real examples. Class means score 1: read it beside recall."""

    title = "Precision"

    def score(self, real: Kept, drawn: Kept, prepared: None) -> dict[str, float]:
        """Return the precision."""
        return {"": self.both(real, drawn).precision}


@dataclass(frozen=True)
class Recall(_Neighbours):
    """Fraction of real examples that lie among the samples: whether these cover the data."""

    title = "Recall"

    def score(self, real: Kept, drawn: Kept, prepared: None) -> dict[str, float]:
        """Return the recall."""
        return {"": self.both(real, drawn).recall}


@dataclass(frozen=True)
class PrecisionRecall:
    """``precision``: share of samples that lie among real ones; ``recall``: share of real ones among the samples."""

    precision: float
    recall: float


def precision_recall(real: ArrayLike, fake: ArrayLike, k: int = 3) -> PrecisionRecall:
    """Return improved precision and recall (Kynkaanniemi et al. 2019, eq. 1 and 2).

    ``real`` [n, F], ``fake`` [m, F]. A set's manifold is the union of balls around its points, each reaching to that
    point's k-th nearest neighbour in the set, itself not counted. Equal n and m make the two numbers comparable.
    Raises ValueError unless k is at least 1 and both sets have more than k rows.
    """
    x, y = pair(real, fake)
    if k < 1 or min(len(x), len(y)) <= k:
        raise ValueError(f"k must be in 1..{min(len(x), len(y)) - 1} (fewer than the rows of either set), got {k}")
    return PrecisionRecall(_covered(y, x, _radii(x, k)), _covered(x, y, _radii(y, k)))


def _radii(x: Tensor, k: int) -> Tensor:
    """Return the distance [n] of each row to its k-th nearest neighbour, itself not counted."""
    radii = torch.empty(len(x), dtype=x.dtype)
    for rows, slab in distances(x, x):
        slab[torch.arange(rows.stop - rows.start), torch.arange(rows.start, rows.stop)] = torch.inf
        radii[rows] = slab.kthvalue(k, dim=1).values
    return radii


def _covered(points: Tensor, centres: Tensor, radii: Tensor) -> float:
    """Return the share of points within the ball of any centre; a squared distance's rounding counts as within."""
    noise = 1e-13 * max(float(centres.square().sum(1).max()), float(points.square().sum(1).max()))
    reach = torch.sqrt(radii.square() + noise)
    inside = sum(int((slab <= reach).any(1).sum()) for _, slab in distances(points, centres))
    return inside / len(points)
