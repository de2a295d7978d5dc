"""What a data set is to the rest of the library: rows of one array, labels or none, and a way to network units."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.core.errors import DataError
from anystep.core.random import generator
from anystep.flow.condition import UNCONDITIONAL, Condition, ConditionSpec, class_labels

Kind = Literal["image", "vector"]
Split = Literal["train", "heldout"]

#: rows that mean and standard deviation are taken over, at most
STATISTICS_ROWS = 4096
#: beyond this a label is taken for a mistake, not for a class
MAX_CLASSES = 100_000
_CHUNK = 1024


@dataclass(frozen=True)
class Normalization:
    """Stored values <-> network units: ``(stored - mean) / std``, with scalars in the units of the stored data.

    Raises ValueError unless ``std`` is positive.
    """

    mean: float
    std: float
    kind: Kind

    def __post_init__(self) -> None:
        if not (np.isfinite(self.mean) and np.isfinite(self.std) and self.std > 0):
            raise ValueError(f"normalization needs a finite mean and a std above 0, got {self.mean}, {self.std}")
        if self.kind not in ("image", "vector"):
            raise ValueError(f"normalization kind must be image or vector, got {self.kind!r}")

    def encode(self, raw: NDArray[Any]) -> Tensor:
        """Return network units, float32: images uint8 [n, H, W, C] -> [n, C, H, W]; vectors float32 [n, D] alike.

        Raises ValueError for another type or number of axes.
        """
        dtype, axes = (np.uint8, 4) if self.kind == "image" else (np.float32, 2)
        if raw.dtype != dtype or raw.ndim != axes:
            raise ValueError(f"{self.kind} rows must be {dtype.__name__} with {axes} axes, got {raw.dtype} {raw.shape}")
        x = torch.from_numpy(np.require(raw, requirements=["C", "W"]))
        if self.kind == "image":
            x = x.permute(0, 3, 1, 2)
        return (x.to(torch.float32, memory_format=torch.contiguous_format) - self.mean) / self.std

    def decode(self, x: Tensor) -> NDArray[Any]:
        """Return stored units of ``x`` [n, ...], the inverse of `encode`.

        Images are rounded and clipped to uint8 [n, H, W, C] (a value that is not a number becomes 0).
        """
        stored = x.detach().to("cpu", torch.float32) * self.std + self.mean
        if self.kind == "vector":
            return stored.numpy()
        pixels = stored.nan_to_num(0.0).round().clamp(0, 255).to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).contiguous().numpy()


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows of an array that lies in memory or in a memory-mapped file. Make one with `from_arrays`.

    ``array``: uint8 [n, H, W, C] for images, float32 [n, D] for vectors. ``labels``: int64 [n] or None.
    ``rows``: which rows of ``array`` belong to the set, in order (None: all); ``labels`` has theirs only.
    Raises DataError for an empty set and for an array of another type or shape.
    """

    name: str
    array: NDArray[Any]
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] | None = None
    rows: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        image = self.array.dtype == np.uint8 and self.array.ndim == 4
        if not image and not (self.array.dtype == np.float32 and self.array.ndim == 2):
            raise DataError(
                f"{self.name}: expected uint8 images [n, H, W, C] or float32 vectors [n, D], "
                f"got {self.array.dtype} {list(self.array.shape)}"
            )
        if len(self) == 0 or self.array.size == 0:
            raise DataError(f"{self.name}: the data set is empty")
        if (self.labels is None) != (self.class_names is None):
            raise ValueError(f"{self.name}: labels and class_names go together")

    @classmethod
    def from_arrays(
        cls,
        name: str,
        array: NDArray[Any],
        labels: NDArray[Any] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> "Dataset":
        """Return a data set after checking its labels; without ``class_names`` classes are called "0", "1", ...

        Raises DataError as `check_labels` does.
        """
        if labels is None:
            return cls(name, array)
        classes = None if class_names is None else len(class_names)
        checked = check_labels(labels, rows=len(array), classes=classes, where=f"{name}, labels")
        if class_names is None:
            class_names = [str(k) for k in range(int(checked.max(initial=-1)) + 1)]
        return cls(name, array, checked, tuple(class_names))

    def __len__(self) -> int:
        return len(self.array) if self.rows is None else len(self.rows)

    @property
    def kind(self) -> Kind:
        """Images or vectors."""
        return "image" if self.array.ndim == 4 else "vector"

    @property
    def shape(self) -> tuple[int, ...]:
        """A row's shape as the network sees it: (C, H, W) or (D,)."""
        if self.kind == "vector":
            return (self.array.shape[1],)
        height, width, channels = self.array.shape[1:]
        return (channels, height, width)

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None for a set without labels."""
        return None if self.class_names is None else len(self.class_names)

    @property
    def conditions(self) -> ConditionSpec:
        """What an example is given."""
        return UNCONDITIONAL if self.class_names is None else class_labels(self.class_names)

    def condition(self, index: NDArray[np.int64]) -> Condition:
        """Return what these rows are given."""
        return None if self.labels is None else torch.from_numpy(self.labels[index])

    def read(self, index: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows in stored units: uint8 [n, H, W, C] or float32 [n, D], a copy."""
        return np.asarray(self.array[index if self.rows is None else self.rows[index]])

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 (hex) of the content: type, shape, every row in order, labels. Names do not count."""
        digest = hashlib.sha256(f"{self.array.dtype} {len(self)} {self.shape}".encode())
        for start in range(0, len(self), _CHUNK):
            digest.update(self.read(np.arange(start, min(start + _CHUNK, len(self)))).tobytes())
        if self.labels is not None:
            digest.update(b"labels" + self.labels.astype("<i8").tobytes())
        return digest.hexdigest()

    def normalization(self) -> Normalization:
        """Return mean and standard deviation over at most 4,096 rows at a fixed stride, all rows of smaller sets.

        Raises DataError when every value is the same.
        """
        count = min(len(self), STATISTICS_ROWS)
        values = self.read(np.arange(count) * len(self) // count).astype(np.float64)
        mean, std = float(values.mean()), float(values.std())
        if std == 0:
            raise DataError(f"{self.name}: every value is {mean:g}, there is nothing to learn")
        return Normalization(mean, std, self.kind)

    def subset(self, index: NDArray[np.int64]) -> "Dataset":
        """Return the rows of ``index``, in that order, without copying; classes stay those of the whole."""
        rows = index if self.rows is None else self.rows[index]
        return replace(self, rows=rows, labels=None if self.labels is None else self.labels[index])


def check_labels(values: NDArray[Any], *, rows: int, classes: int | None, where: str) -> NDArray[np.int64]:
    """Return labels as int64 [rows].

    Raises DataError, beginning with ``where``, when there are not ``rows`` of them, or naming the first row whose
    label is no integer in ``0 .. classes - 1`` (without ``classes``: below 100,000).
    """
    if values.shape != (rows,):
        raise DataError(f"{where}: expected one label a row, shape [{rows}], got {list(values.shape)}")
    if values.dtype.kind not in "iubf":
        shown = f", row 0 is {values[0]!r}" if rows else ""
        raise DataError(f"{where}: labels must be integers, got {values.dtype}{shown}")
    limit = MAX_CLASSES if classes is None else classes
    wrong = ~((values >= 0) & (values < limit) & (values == np.floor(values)))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"{where}: row {row} is {values[row]}, expected an integer from 0 to {limit - 1}")
    return values.astype(np.int64)


def split(dataset: Dataset, heldout: float) -> tuple[Dataset, Dataset]:
    """Divide into (train, held-out rows), disjoint and complete, the same in every run.

    ``heldout`` is a share, above 0 and below 1. Each class gives its share, to within one row. Which rows are held
    out depends on nothing but their number and their labels. Raises DataError when either part would be empty.
    """
    if not 0 < heldout < 1:
        raise ValueError(f"heldout must be above 0 and below 1, got {heldout}")
    order = torch.randperm(len(dataset), generator=generator(0, 0, "split")).numpy()
    if dataset.labels is not None:
        order = order[np.argsort(dataset.labels[order], kind="stable")]
    # Every 1/heldout-th row of the shuffled rows in order of class: stratified, and exact in total.
    chosen = np.diff(np.floor(np.arange(len(dataset) + 1) * heldout + 0.5)) > 0
    if chosen.all() or not chosen.any():
        part = "no rows to train on" if chosen.all() else "no rows held out"
        raise DataError(f"{dataset.name}: heldout {heldout:g} of {len(dataset)} rows leaves {part}")
    return dataset.subset(np.sort(order[~chosen])), dataset.subset(np.sort(order[chosen]))


def part(dataset: Dataset, heldout: float, which: Split) -> Dataset:
    """Return one part of `split`; with ``heldout`` 0 all rows are for training.

    Raises DataError when held-out rows are asked for and there are none.
    """
    if which not in ("train", "heldout"):
        raise ValueError(f"split must be train or heldout, got {which!r}")
    if heldout > 0:
        return split(dataset, heldout)[which == "heldout"]
    if which == "heldout":
        raise DataError(f"{dataset.name}: no rows are held out; --data.heldout 0.1 keeps a tenth from training")
    return dataset
