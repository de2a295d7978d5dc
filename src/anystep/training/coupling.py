"""Pooled optimal transport in training (as in improved shortcut models): noise is assigned to data within a window.

Window w is the updates wK ... wK + K - 1. Its pool consists of their encoded data and of the noise that each update
would draw without coupling. One assignment over the pool (`anystep.flow.coupling`) decides which noise each example
gets; all else (times, levels, scales, dropped labels) is drawn per update, as without coupling.

A window is a function of (keys, w, data). It does not depend on the length of the run or its phases, so that a run that
is resumed within a window, or made longer, solves it again with the same result. Its arithmetic is float64 on the CPU,
whatever the run's device and precision. Data is read twice, once for the window and once for the update.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from math import inf

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.core.errors import DataError, RunError
from anystep.core.random import Keys
from anystep.data import batch_indices
from anystep.flow.condition import cat
from anystep.flow.coupling import CouplingConfig, optimal_assignment
from anystep.objectives import Batch, Draw
from anystep.training.examples import DataExamples


def solve(cost: Tensor) -> Tensor:
    """Return the column of each row in the assignment of least total cost, int64 [n] on the device of ``cost`` [n, n].

    By SciPy's shortest augmenting paths, in float64. The least cost of each column, then of each row, is subtracted,
    and columns are given rows: the optimum is the same, and found two to four times quicker where rows are equal, as
    those of an image that is several times in a pool. Deterministic. Raises ValueError where a cost is infinite or not
    a number.
    """
    from scipy.optimize import linear_sum_assignment  # only where there is something to assign

    if not bool(torch.isfinite(cost).all()):
        raise ValueError("an assignment needs finite costs: some are infinite or not a number")
    reduced = cost.detach().double().cpu()
    reduced = reduced - reduced.amin(0)
    reduced = reduced - reduced.amin(1, keepdim=True)
    rows = torch.from_numpy(linear_sum_assignment(reduced.T.numpy())[1])
    return rows.argsort().to(cost.device, torch.int64)


def coupled_noise(data: DataExamples, config: CouplingConfig, keys: Keys, batch: int, window: int) -> Tensor:
    """Return the noise of every update in a window, float32 [updates, batch, ...] on the CPU: their own, permuted."""
    pool = []
    for step in range(window * config.batches, (window + 1) * config.batches):
        index = batch_indices(len(data), batch, step, keys)
        pool.append(data.batch(index, Draw(keys, step, batch, slice(0, batch))))
    x0, x1 = torch.cat([part.x0 for part in pool]), torch.cat([part.x1 for part in pool])
    conditions = data.dataset.conditions
    labelled = config.by_class and conditions.num_classes is not None
    label = conditions.class_label(cat(*(part.condition for part in pool))) if labelled else None
    cost = inf if config.per_class else config.class_cost
    order = optimal_assignment(x0.double(), x1.double(), solve, label, cost)
    return x0[order].reshape(config.batches, batch, *x0.shape[1:])


class CoupledExamples:
    """Examples of a data set with coupled noise; the next window is solved in parallel with training.

    No window that starts at update ``last`` or later is solved.
    """

    def __init__(self, data: DataExamples, config: CouplingConfig, *, keys: Keys, batch: int, last: int) -> None:
        self.data, self.last, self.size = data, last, config.batches
        self._noise: Callable[[int], Tensor] = partial(coupled_noise, data, config, keys, batch)
        self._solver = ThreadPoolExecutor(1, "coupling")  # its thread ends with this object
        self._windows: dict[int, Future[Tensor]] = {}

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, index: NDArray[np.int64], draw: Draw) -> Batch:
        """Return our part of the examples with their coupled noise. Raises RunError when the assignment fails."""
        window, step = divmod(draw.step, self.size)
        return replace(self.data.batch(index, draw), x0=draw.ours(self._window(window)[step]))

    def _window(self, window: int) -> Tensor:
        self._windows = {w: solved for w, solved in self._windows.items() if w >= window}
        for w in (window, window + 1):
            if w not in self._windows and (w == window or w * self.size < self.last):
                self._windows[w] = self._solver.submit(self._noise, w)
        try:
            return self._windows[window].result()
        except DataError:
            raise
        except (ValueError, RuntimeError, MemoryError) as error:
            first = window * self.size
            why = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise RunError(
                f"stopped: no coupling for updates {first} to {first + self.size - 1}: {why}; earlier checkpoints are "
                "intact. Try a lower coupling.batches"
            ) from error
