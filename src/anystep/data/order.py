"""Which rows step n trains on: a function of (keys, n) alone, so that a resumed run needs no state."""

from functools import lru_cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from anystep.core.random import Keys

#: rows whose order is held in memory; beyond, each row's place is computed
IN_MEMORY = 2**24
#: rounds of the Feistel permutation, half of them on either part of a number
ROUNDS = 8


@lru_cache(maxsize=2)
def _permutation(size: int, keys: Keys, epoch: int) -> NDArray[np.int64]:
    order = keys.permutation(epoch, "order", size)
    order.flags.writeable = False  # shared by every later call
    return order


def batch_indices(size: int, batch: int, step: int, keys: Keys) -> NDArray[np.int64]:
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
        first, last = max(start - epoch * size, 0), min(stop - epoch * size, size)
        if size <= IN_MEMORY or keys.version == 1:
            pieces.append(_permutation(size, keys, epoch)[first:last])
        else:
            pieces.append(computed_order(np.arange(first, last), size, keys.words(epoch, "order", ROUNDS)))
    return np.concatenate(pieces)


def computed_order(place: NDArray[np.int64], size: int, words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the rows at these places of a random order of ``size`` rows that is held nowhere.

    A Feistel permutation of the numbers below a * b, the smallest near-square of at least ``size``; a number that it
    sends to ``size`` or beyond is sent on until it comes below, which keeps it a permutation (Black and Rogaway 2002).
    ``words`` are its random keys, one for each round.
    """
    a = np.uint64(isqrt(size - 1) + 1)
    b = np.uint64(-(-size // int(a)))
    row = _feistel(place.astype(np.uint64), a, b, words)
    while (beyond := row >= size).any():
        row[beyond] = _feistel(row[beyond], a, b, words)
    return row.astype(np.int64)


def _feistel(number: NDArray[np.uint64], a: np.uint64, b: np.uint64, words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    left, right = number // b, number % b  # below a, below b
    for one, other in words.reshape(-1, 2):
        left = (left + _mixed(right ^ one) % a) % a
        right = (right + _mixed(left ^ other) % b) % b
    return left * b + right


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return 64 bits that all depend on all of ``x`` (the finalizer of SplitMix64, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
