"""How a quantity changes over a run: from a first value to a last one between two fractions of the run."""

import math
from typing import Literal

#: by equal parts, smoothly at both ends, or at once in the middle
Shape = Literal["linear", "cosine", "step"]


def rise(fraction: float, first: float, last: float, shape: Shape) -> float:
    """Return how much of a change is done at ``fraction`` of a run, in [0, 1]: none until ``first``, all from ``last``.

    Its mean over the run is ``1 - (first + last) / 2`` for every shape.
    """
    if fraction >= last:
        return 1.0
    if fraction <= first:
        return 0.0
    part = (fraction - first) / (last - first)
    if shape == "cosine":
        return (1 - math.cos(math.pi * part)) / 2
    return part if shape == "linear" else float(part >= 0.5)
