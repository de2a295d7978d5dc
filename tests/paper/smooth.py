"""Networks for methods that take any step: one small and smooth in d, twice, and the exact flow of Gaussian data."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anystep.core.random import Keys
from anystep.objectives import Batch, Draw
from tests.toys import WithNull

CLASSES, WIDTH = 3, 5


@dataclass
class Smooth(WithNull):
    """s(x, t, d, c) = tanh(W x + p t + q d + E[c]) + x / 3; counts the rows that it is asked for."""

    W: np.ndarray
    p: np.ndarray
    q: np.ndarray
    E: np.ndarray
    rows: int = 0

    num_classes = CLASSES

    @classmethod
    def make(cls, seed: int) -> "Smooth":
        rng = np.random.default_rng(seed)
        W, E = rng.normal(size=(WIDTH, WIDTH)) / 2, rng.normal(size=(CLASSES + 1, WIDTH))
        return cls(W, rng.normal(size=WIDTH), rng.normal(size=WIDTH), E)

    def row(self, x: np.ndarray, t: float, d: float, c: int) -> np.ndarray:
        """One example, in NumPy."""
        return np.tanh(self.W @ x + self.p * t + self.q * d + self.E[c]) + x / 3

    def __call__(
        self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance: Tensor | None = None
    ) -> Tensor:
        """A batch, in torch."""
        self.rows += len(x)
        W, p, q, E = (torch.from_numpy(a).to(x.dtype) for a in (self.W, self.p, self.q, self.E))
        t, d = t[:, None].to(x.dtype), d[:, None].to(x.dtype)
        embedded = E[torch.full((len(x),), CLASSES) if label is None else label]
        return torch.tanh(x @ W.T + t * p + d * q + embedded) + x / 3


MEAN, STD = 1.5, 0.3


class GaussianFlow:
    """The average velocity of the flow from N(0, 1) to N(1.5, 0.3^2): the flow map is affine at every t."""

    @staticmethod
    def spread(t: Tensor) -> Tensor:
        return ((1 - t) ** 2 + (t * STD) ** 2).sqrt()

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        t = t[:, None].to(x.dtype)
        return MEAN + (t * STD**2 - (1 - t)) / self.spread(t) ** 2 * (x - t * MEAN)

    def __call__(
        self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance: Tensor | None = None
    ) -> Tensor:
        t, d = t[:, None].to(x.dtype), d[:, None].to(x.dtype)
        end = t + d
        return (end * MEAN + self.spread(end) / self.spread(t) * (x - t * MEAN) - x) / d


def smooth_batch(rows: int, step: int = 5) -> tuple[Batch, Draw]:
    """Float64 rows of labelled data, and their draws."""
    rng = np.random.default_rng(0)
    x0, x1 = (torch.from_numpy(a) for a in rng.normal(size=(2, rows, WIDTH)))
    label = torch.from_numpy(rng.integers(0, CLASSES, rows))
    return Batch(x1, x0, label), Draw(Keys(0), step=step, total=rows, rows=slice(0, rows))


def part(batch: Batch, draw: Draw, rows: slice) -> tuple[Batch, Draw]:
    """One rank's or micro-batch's rows."""
    assert batch.condition is not None
    return Batch(batch.x1[rows], batch.x0[rows], batch.condition[rows]), Draw(draw.keys, draw.step, draw.total, rows)
