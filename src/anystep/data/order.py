"""Which rows step n trains on: a function of (seed, n) alone, so that a resumed run needs no state."""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from anystep.core.random import generator


@lru_cache(maxsize=2)
def _permutation(size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    order: NDArray[np.int64] = torch.randperm(size, generator=generator(seed, epoch, "order")).numpy()
    order.flags.writeable = False  # shared by every later call
    return order


def batch_indices(size: int, batch: int, step: int, seed: int) -> NDArray[np.int64]:
    """Return the rows of step ``step``'s global batch, int64 [batch], of a set of ``size`` rows.

    Epochs are permutations laid end to end and cut into batches: every row comes exactly once an epoch, also when
    ``batch`` does not divide ``size`` or exceeds it. Steps count from 0. Raises ValueError for a size or batch
    below 1 or a negative step.
    """
    for field, value, least in (("size", size, 1), ("batch", batch, 1), ("step", step, 0)):
        if value < least:
            raise ValueError(f"{field} must be at least {least}, got {value}")
    start, stop = step * batch, (step + 1) * batch
    pieces = []
    for epoch in range(start // size, (stop - 1) // size + 1):
        first = epoch * size
        pieces.append(_permutation(size, seed, epoch)[max(start - first, 0) : stop - first])
    return np.concatenate(pieces)
