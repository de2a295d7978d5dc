"""One small conditional network twice: in torch for the library, in NumPy for the transcriptions."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tests.toys import WithNull

M, CLASSES, WIDTH = 8, 3, 5


@dataclass(frozen=True)
class Toy(WithNull):
    """s(x, t, d, c) = tanh(W x + p t + q log2(1/d) / 8 + E[c]) + x / 3, where d = 0 counts as 1/M."""

    W: np.ndarray
    p: np.ndarray
    q: np.ndarray
    E: np.ndarray

    num_classes = CLASSES

    @classmethod
    def make(cls, seed: int) -> "Toy":
        rng = np.random.default_rng(seed)
        W = rng.normal(size=(WIDTH, WIDTH)) / 2
        return cls(W, rng.normal(size=WIDTH), rng.normal(size=WIDTH), rng.normal(size=(CLASSES + 1, WIDTH)))

    def row(self, x: np.ndarray, t: float, d: float, c: int) -> np.ndarray:
        """One example, in NumPy."""
        index = np.log2(M) if d == 0 else np.log2(1 / d)
        return np.tanh(self.W @ x + self.p * t + self.q * index / 8 + self.E[c]) + x / 3

    def __call__(
        self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance: Tensor | None = None
    ) -> Tensor:
        """A batch, in torch."""
        W, p, q, E = (torch.from_numpy(a).to(x.dtype) for a in (self.W, self.p, self.q, self.E))
        index = torch.where(d == 0, float(np.log2(M)), torch.log2(1 / d.clamp(min=1e-9))).to(x.dtype)
        embedded = E[torch.full_like(t, CLASSES, dtype=torch.long) if label is None else label]
        return torch.tanh(x @ W.T + t[:, None].to(x.dtype) * p + index[:, None] * q / 8 + embedded) + x / 3
