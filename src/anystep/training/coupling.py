"""Pooled optimal transport in training (as in improved shortcut models): which of a window's noise meets which of its
data.

Window w is the updates wK ... wK + K - 1. Its pool holds their data, as the codec encodes it with their draws, and the
noise that each update would draw without coupling. One assignment over the pool (`anystep.flow.coupling`) says which
noise each row of data is given; all else (times, levels, scales, dropped labels) is drawn per update, as without it.

A window is a function of (keys, w, data) and knows neither the run's length nor its phases, so that a run that is
stopped within one, goes on or is made longer solves it again and finds the same. Its arithmetic is float64 on the CPU,
whatever the run's device and precision. Data is read twice, once for the window and once for the update.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from math import inf

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.codecs import Rows
from anystep.core.errors import DataError, RunError
from anystep.core.random import Keys
from anystep.data import batch_indices
from anystep.flow.condition import cat
from anystep.flow.coupling import CouplingConfig, optimal_assignment
from anystep.objectives import Batch, Draw
from anystep.training.assignment import solve
from anystep.training.examples import DataExamples


def coupled_noise(data: DataExamples, config: CouplingConfig, keys: Keys, batch: int, window: int) -> Tensor:
    """Return the noise of every update in a window, float32 [updates, batch, ...] on the CPU: its own, permuted."""
    pool = []
    for step in range(window * config.batches, (window + 1) * config.batches):
        index = batch_indices(len(data), batch, step, keys)
        pool.append(data.batch(data.read(index), index, Draw(keys, step, batch, slice(0, batch))))
    x0, x1 = torch.cat([part.x0 for part in pool]), torch.cat([part.x1 for part in pool])
    label = data.dataset.conditions.class_label(cat(*(part.condition for part in pool))) if config.by_class else None
    cost = inf if config.per_class else config.class_cost
    given = optimal_assignment(x0.double(), x1.double(), solve, label, cost)
    return x0[given].reshape(config.batches, batch, *x0.shape[1:])


class CoupledExamples:
    """Rows of a data set whose noise is coupled, window by window; the next one is solved beside the training.

    ``last`` is the update to stop before: no window that begins there or later is solved ahead.
    """

    def __init__(self, data: DataExamples, config: CouplingConfig, *, keys: Keys, batch: int, last: int) -> None:
        self.data, self.last, self.size = data, last, config.batches
        self._noise: Callable[[int], Tensor] = partial(coupled_noise, data, config, keys, batch)
        self._solver = ThreadPoolExecutor(1, "coupling")  # its thread ends when this object goes
        self._windows: dict[int, Future[Tensor]] = {}

    def __len__(self) -> int:
        return len(self.data)

    def read(self, index: NDArray[np.int64]) -> Rows:
        """Return the rows as they are stored."""
        return self.data.read(index)

    def batch(self, rows: Rows, index: NDArray[np.int64], draw: Draw) -> Batch:
        """Return our part of the rows with their coupled noise. Raises RunError when the assignment fails."""
        window, step = divmod(draw.step, self.size)
        x1, condition = self.data.clean(rows, index, draw)
        return Batch(x1=x1, x0=draw.ours(self._window(window)[step]), condition=condition)

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
                f"stopped: no coupling for updates {first} to {first + self.size - 1}: {why}; "
                "checkpoints saved before are good. Try a lower coupling.batches"
            ) from error
