"""Scores of a set of samples against real ones: coverage, energy distance, and whether the class that was asked came.

All take feature rows and compute in float64, a slab of distances at a time (about 64 MiB), whatever the sizes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

SLAB = 1 << 23
EXACT_FEATURES = 256


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
    x, y = _pair(real, fake)
    if k < 1 or min(len(x), len(y)) <= k:
        raise ValueError(f"k must be in 1..{min(len(x), len(y)) - 1} (fewer than the rows of either set), got {k}")
    return PrecisionRecall(_covered(y, x, _radii(x, k)), _covered(x, y, _radii(y, k)))


def energy_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Return ``2 E|X - Y| - E|X - X'| - E|Y - Y'|`` of two samples [n, F], [m, F] (Szekely and Rizzo 2013, eq. 5).

    The V-statistic: never negative, zero for equal sets only; two samples of one distribution are about
    ``E|X - X'| (1/n + 1/m)`` apart. In the units of the features. Raises ValueError for an empty set.
    """
    a, b = _pair(x, y)
    if min(len(a), len(b)) == 0:
        raise ValueError(f"energy distance needs rows on both sides, got {len(a)} and {len(b)}")

    def mean(p: Tensor, q: Tensor) -> float:
        return sum(float(slab.sum()) for _, slab in _distances(p, q)) / (len(p) * len(q))

    return max(0.0, 2 * mean(a, b) - mean(a, a) - mean(b, b))


@dataclass(frozen=True)
class ClassJudge:
    """A classifier of real examples, fitted by `class_judge`. ``name`` says what it is, for the protocol record."""

    model: Any
    name: str

    def accuracy(self, features: ArrayLike, labels: ArrayLike) -> float:
        """Return the share of rows [n, F] whose class is recognised as ``labels`` [n]. Raises ValueError when empty."""
        wanted = np.asarray(labels)
        rows = np.asarray(features, dtype=np.float64)
        if len(rows) == 0 or len(rows) != len(wanted):
            raise ValueError(f"accuracy needs one label a row and some rows, got {len(rows)} and {len(wanted)} labels")
        return float(np.mean(self.model.predict(rows) == wanted))


def class_judge(features: ArrayLike, labels: ArrayLike) -> ClassJudge:
    """Fit a support vector classifier (RBF kernel, C = 10, gamma "scale") to real rows [n, F] with ``labels`` [n].

    Fit it to held-out data, which the generator has not seen, and judge the training data too: that second number
    says how far the first can be trusted. Never enough alone: class means score 1.0.
    Deterministic. Raises ValueError for fewer than two classes.
    """
    from sklearn.svm import SVC

    known = np.asarray(labels)
    if len(np.unique(known)) < 2:
        raise ValueError(f"a classifier needs at least 2 classes, got {len(np.unique(known))}")
    model = SVC(C=10.0, gamma="scale").fit(np.asarray(features, dtype=np.float64), known)
    return ClassJudge(model, "SVC(rbf, C=10, gamma=scale)")


def _pair(x: ArrayLike, y: ArrayLike) -> tuple[Tensor, Tensor]:
    """Return two sets of rows as float64, moved together so that their mean is near zero (distances stay)."""
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"both sets must be rows of the same features, got shapes {a.shape} and {b.shape}")
    centre: NDArray[np.float64] = a.mean(0) if len(a) else np.zeros(a.shape[1])
    return torch.from_numpy(a - centre), torch.from_numpy(b - centre)


def _distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield slabs of the distances of some rows of x [n, F] to all of y [m, F], with which rows they are.

    Differences are taken directly up to 256 features; above, ``|x|^2 + |y|^2 - 2 x y`` is 15 times faster.
    """
    exact = x.shape[1] <= EXACT_FEATURES
    mode = "donot_use_mm_for_euclid_dist" if exact else "use_mm_for_euclid_dist"
    height = max(1, SLAB // max(1, len(y)))
    for start in range(0, len(x), height):
        rows = slice(start, min(start + height, len(x)))
        yield rows, torch.cdist(x[rows], y, compute_mode=mode)


def _radii(x: Tensor, k: int) -> Tensor:
    """Return the distance [n] of each row to its k-th nearest neighbour, itself not counted."""
    radii = torch.empty(len(x), dtype=x.dtype)
    for rows, slab in _distances(x, x):
        slab[torch.arange(rows.stop - rows.start), torch.arange(rows.start, rows.stop)] = torch.inf
        radii[rows] = slab.kthvalue(k, dim=1).values
    return radii


def _covered(points: Tensor, centres: Tensor, radii: Tensor) -> float:
    """Return the share of points within the ball of any centre; a squared distance's rounding counts as within."""
    noise = 1e-13 * max(float(centres.square().sum(1).max()), float(points.square().sum(1).max()))
    reach = torch.sqrt(radii.square() + noise)
    inside = sum(int((slab <= reach).any(1).sum()) for _, slab in _distances(points, centres))
    return inside / len(points)
