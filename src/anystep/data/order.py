"""The examples of step n: a function of (keys, n) alone, so that a resumed run needs no state."""

from functools import lru_cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from anystep.core.random import Keys

#: largest set whose order is held in memory; for larger ones the number at each place is computed
IN_MEMORY = 2**24
#: rounds of the Feistel permutation, half of them on each part of a number
ROUNDS = 8


@lru_cache(maxsize=2)
def _permutation(size: int, keys: Keys, epoch: int) -> NDArray[np.int64]:
    return keys.permutation(epoch, "order", size)


def batch_indices(size: int, batch: int, step: int, keys: Keys) -> NDArray[np.int64]:
    """Return the numbers of the examples in the global batch of step 0, 1, ..., int64 [batch], of ``size`` examples.

    Epochs are permutations, concatenated and cut into batches: every example comes exactly once per epoch, also when
    ``batch`` does not divide ``size`` or exceeds it.
    """
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
    """Return the numbers at these places of a random order of ``size`` numbers, without storing the order.

    A Feistel permutation of the numbers below a * b, the smallest near-square of at least ``size``. It is applied again
    to a result of ``size`` or more until that is smaller, which keeps it a permutation (Black and Rogaway 2002).
    ``words`` are its random keys, one per round.
    """
    a = np.uint64(isqrt(size - 1) + 1)
    b = np.uint64(-(-size // int(a)))
    number = _feistel(place.astype(np.uint64), a, b, words)
    while (outside := number >= size).any():
        number[outside] = _feistel(number[outside], a, b, words)
    return number.astype(np.int64)


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
