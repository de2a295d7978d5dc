"""Distances between all examples of two sets, in float64, a slab at a time (about 64 MiB) whatever the sizes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from anystep.evaluation.metrics.base import Kept

SLAB = 1 << 23
EXACT_FEATURES = 256


def equal_numbers(real: Kept, drawn: Kept) -> tuple[Tensor, Tensor]:
    """Return features of equally many real examples and samples, float64 [n, F].

    Both are moved by the mean of the real ones, which changes no distance and makes rounding errors small.
    """
    size = min(len(real.rows), len(drawn.rows))
    centre = real.rows[:size].mean(0)
    return torch.from_numpy(real.rows[:size] - centre), torch.from_numpy(drawn.rows[:size] - centre)


def distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of x [n, F] and the distances of these examples to all of y [m, F].

    Differences are taken directly up to 256 features; above, ``|x|^2 + |y|^2 - 2 x y`` is 15 times faster.
    """
    exact = x.shape[1] <= EXACT_FEATURES
    mode = "donot_use_mm_for_euclid_dist" if exact else "use_mm_for_euclid_dist"
    height = max(1, SLAB // max(1, len(y)))
    for start in range(0, len(x), height):
        rows = slice(start, min(start + height, len(x)))
        yield rows, torch.cdist(x[rows], y, compute_mode=mode)
