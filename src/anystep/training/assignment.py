"""Exact linear assignment, for `anystep.flow.coupling`: SciPy's solver, or lapx's where it is installed (extra `ot`).

Both are shortest augmenting paths in float64 and find the same optimum; only where two plans cost exactly the same may
they choose differently. Both let go of Python's lock while they work, so that a thread of their own is worth having.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


@cache
def solver() -> tuple[str, Callable[[NDArray[Any]], NDArray[Any]]]:
    """Return the package that solves here, and its function: costs [n, n] -> each row's column."""
    try:
        from lap import lapjvr  # lapx 0.11 or newer; its older lapjv is slower than SciPy
    except ImportError:
        from scipy.optimize import linear_sum_assignment

        return "scipy", lambda cost: linear_sum_assignment(cost)[1]
    return "lapx", lambda cost: lapjvr(cost, return_cost=False)[1]


def solve(cost: Tensor) -> Tensor:
    """Return each row's column in the assignment of least total cost, int64 [n] on the device of ``cost`` [n, n].

    Any float type; the arithmetic is float64. Deterministic. Raises ValueError for costs that are not square, or where
    one is infinite or not a number.
    """
    if cost.ndim != 2 or cost.shape[0] != cost.shape[1]:
        raise ValueError(f"an assignment needs a square matrix of costs, got shape {tuple(cost.shape)}")
    if not bool(torch.isfinite(cost).all()):
        raise ValueError("an assignment needs finite costs: some are infinite or not a number")
    _, columns = solver()
    return torch.from_numpy(columns(cost.detach().double().cpu().numpy())).to(cost.device, torch.int64)
