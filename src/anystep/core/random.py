"""All randomness of a run: generators keyed by (seed, step, stream), and what a training step draws from them."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

#: rows that one generator draws
BLOCK = 32


def generator(seed: int, step: int, stream: str) -> torch.Generator:
    """Return the CPU generator of one (seed, step, stream): the only source of randomness in a run."""
    digest = hashlib.blake2b(f"{seed}/{step}/{stream}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def spread(rows: int, share: float) -> Tensor:
    """Return which of ``rows`` are a ``share`` of them, bool [rows], at equal distances."""
    count = torch.arange(rows + 1, dtype=torch.float64).mul(share).round()
    return count.diff() > 0


@dataclass(frozen=True)
class Draw:
    """The random quantities of one training step, drawn for the global batch of ``total`` rows; ``rows`` are ours.

    Each block of 32 rows has a generator of its own, so that a rank or a micro-batch draws its own blocks only. Draws
    are made on the CPU and moved, so that they do not depend on the device either.
    """

    seed: int
    step: int
    total: int
    rows: slice
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def normal(self, stream: str, shape: Sequence[int]) -> Tensor:
        """Return standard normal [our rows, *shape]."""
        return self._blocks(stream, lambda source: torch.randn(BLOCK, *shape, generator=source))

    def uniform(self, stream: str) -> Tensor:
        """Return uniform [0, 1) float32 [our rows]."""
        return self._blocks(stream, lambda source: torch.rand(BLOCK, generator=source))

    def _blocks(self, stream: str, make: Callable[[torch.Generator], Tensor]) -> Tensor:
        first, last = self.rows.start // BLOCK, -(-self.rows.stop // BLOCK)
        sources = (generator(self.seed, self.step, f"{stream}/{block}") for block in range(first, last))
        rows = torch.cat([make(source) for source in sources])
        return rows[self.rows.start - first * BLOCK : self.rows.stop - first * BLOCK].to(self.device)

    def spread(self, share: float) -> Tensor:
        """Return which rows of the global batch are a ``share`` of it, bool [total], spread evenly over it.

        Every rank and micro-batch has its part of them, to within one row.
        """
        return spread(self.total, share)

    def ours(self, every: Tensor) -> Tensor:
        """Return our rows of a quantity that was made for the global batch."""
        return every[self.rows].to(self.device)
