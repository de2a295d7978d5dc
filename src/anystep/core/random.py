"""All randomness of a run: numbers keyed by (seed, step, stream, block of rows), and those of a training step.

Version 2 hashes a key to 128 bits, the width of a key of Philox, NumPy's counter-based generator. Version 1, of anystep
0.1.0, hashed to 63 bits, of which torch's CPU generator keeps 32: of 100,000 keys, two are likely to give the same
numbers. `run.json` records the version of a run, which never changes.
"""

import hashlib
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.core.errors import UsageError

#: version of the keys of new runs
KEY_VERSION = 2
#: rows drawn from one key
BLOCK = 32


def torch_generator(seed: int, step: int, stream: str) -> torch.Generator:
    """Return torch's CPU generator of a key of version 1.

    The held-out split and the order of a reference use it whatever the version: they are permutations, which need no
    more bits, and must not change.
    """
    digest = hashlib.blake2b(f"{seed}/{step}/{stream}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


class _Philox(threading.local):
    """One Philox generator per thread. Setting its key takes 3 us; building a new one takes 14 us."""

    def __init__(self) -> None:
        self._bits = np.random.Philox(0)
        self._generator = np.random.Generator(self._bits)
        self._start = self._bits.state | {"buffer_pos": 4, "has_uint32": 0, "uinteger": 0}

    def at(self, key: str) -> np.random.Generator:
        """Return the generator at the start of the stream of ``key``; the next call invalidates it."""
        words = np.frombuffer(hashlib.blake2b(key.encode(), digest_size=16).digest(), "<u8")
        self._bits.state = self._start | {"state": {"counter": np.zeros(4, np.uint64), "key": words}}
        return self._generator


_PHILOX = _Philox()


@dataclass(frozen=True)
class Keys:
    """The random numbers of a seed, by (step, stream, block of rows). Raises UsageError for an unknown version."""

    seed: int
    version: int = KEY_VERSION

    def __post_init__(self) -> None:
        if self.version not in {1, 2}:
            raise UsageError(f"random keys of version {self.version!r} are unknown here: update anystep")

    def normal(self, step: int, stream: str, shape: Sequence[int], block: int | None = None) -> Tensor:
        """Return standard normal float32 [*shape] on the CPU."""
        if self.version == 1:
            return torch.randn(tuple(shape), generator=self._torch(step, stream, block))
        return torch.from_numpy(self._numpy(step, stream, block).standard_normal(tuple(shape), dtype=np.float32))

    def uniform(self, step: int, stream: str, num: int, block: int | None = None) -> Tensor:
        """Return uniform [0, 1) float32 [num] on the CPU."""
        if self.version == 1:
            return torch.rand(num, generator=self._torch(step, stream, block))
        return torch.from_numpy(self._numpy(step, stream, block).random(num, dtype=np.float32))

    def permutation(self, step: int, stream: str, size: int) -> NDArray[np.int64]:
        """Return the numbers 0 ... size - 1 in random order."""
        if self.version == 1:
            order: NDArray[np.int64] = torch.randperm(size, generator=self._torch(step, stream, None)).numpy()
            return order
        return self._numpy(step, stream, None).permutation(size)

    def words(self, step: int, stream: str, num: int) -> NDArray[np.uint64]:
        """Return ``num`` words of 64 random bits, the same in every version and every release of NumPy."""
        return np.asarray(self._numpy(step, stream, None).bit_generator.random_raw(num), dtype=np.uint64)

    def torch_seed(self, step: int, stream: str) -> int:
        """Return a seed of 63 bits for torch's own generators (initial weights, dropout), the same in every version.

        torch's CPU generator keeps 32 bits of it, enough for these few draws: a repetition would do no harm.
        """
        return torch_generator(self.seed, step, stream).initial_seed()

    def _torch(self, step: int, stream: str, block: int | None) -> torch.Generator:
        return torch_generator(self.seed, step, stream if block is None else f"{stream}/{block}")

    def _numpy(self, step: int, stream: str, block: int | None) -> np.random.Generator:
        return _PHILOX.at(f"{self.seed}/{step}/{block}/{stream}")  # the stream is last, as it may contain slashes


def spread(rows: int, share: float) -> Tensor:
    """Return a mask of a fraction ``share`` of ``rows``, bool [rows], at equal distances."""
    count = torch.arange(rows + 1, dtype=torch.float64).mul(share).round()
    return count.diff() > 0


@dataclass(frozen=True)
class Draw:
    """The random numbers of one training step: of a global batch of ``total`` rows, the slice ``rows``.

    Each block of 32 rows has a separate key, so that a rank or a micro-batch draws its own blocks only. Numbers are
    drawn on the CPU and moved, so that they do not depend on the device.
    """

    keys: Keys
    step: int
    total: int
    rows: slice
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def normal(self, stream: str, shape: Sequence[int]) -> Tensor:
        """Return standard normal numbers, [our rows, *shape]."""
        return self._blocks(lambda block: self.keys.normal(self.step, stream, (BLOCK, *shape), block))

    def uniform(self, stream: str) -> Tensor:
        """Return uniform numbers in [0, 1), float32 [our rows]."""
        return self._blocks(lambda block: self.keys.uniform(self.step, stream, BLOCK, block))

    def _blocks(self, draw: Callable[[int], Tensor]) -> Tensor:
        first, last = self.rows.start // BLOCK, -(-self.rows.stop // BLOCK)
        rows = torch.cat([draw(block) for block in range(first, last)])
        return rows[self.rows.start - first * BLOCK : self.rows.stop - first * BLOCK].to(self.device)

    def spread(self, share: float) -> Tensor:
        """Return a mask of a fraction ``share`` of the global batch, bool [total], with equal parts in all ranks."""
        return spread(self.total, share)

    def ours(self, every: Tensor) -> Tensor:
        """Return our rows of a quantity of the global batch."""
        return every[self.rows].to(self.device)

    def seed_network(self) -> None:
        """Seed torch's own generators for our rows, so that a network's dropout is the same in a resumed run."""
        seed = self.keys.torch_seed(self.step, f"network/{self.rows.start}")
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            with torch.accelerator.device_index(self.device.index):
                torch.get_device_module(self.device).manual_seed(seed)


def preserved_generators(device: torch.device) -> AbstractContextManager[None]:
    """Return a context that restores torch's generators at its end, so that the caller's numbers are undisturbed."""
    devices = [] if device.type == "cpu" else [device]
    return torch.random.fork_rng(devices, device_type=device.type)
