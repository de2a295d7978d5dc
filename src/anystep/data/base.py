"""What a data set is to the rest of the library: examples by number, the codec for them, and their conditions."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.codecs import Codec, RowReader, Rows, Vectors, default_codec
from anystep.codecs.base import stride
from anystep.core.errors import DataError, counted
from anystep.core.fields import check_value
from anystep.core.random import torch_generator
from anystep.flow.condition import LONE_FEATURE, LONE_LABEL, Condition, ConditionSpec, Entry, fill_missing, flat

Split = Literal["train", "heldout"]
#: a feature of every example: an array [n, ...], or a function of the example's number
FeatureValues = NDArray[Any] | Callable[[int], Any]


@dataclass(frozen=True, eq=False)
class ArrayRows:
    """The rows of an array in memory, or in a memory-mapped file."""

    name: str
    array: NDArray[Any]

    def __len__(self) -> int:
        return len(self.array)

    def read(self, index: NDArray[np.int64]) -> Rows:
        """Return a copy of these rows."""
        return torch.from_numpy(np.ascontiguousarray(self.array[index]))


@dataclass(frozen=True, eq=False)
class ComputedRows:
    """Rows that a function of their number returns: tensors or arrays of one shape and type."""

    name: str
    length: int
    function: Callable[[int], Any]

    def __len__(self) -> int:
        return self.length

    def read(self, index: NDArray[np.int64]) -> Rows:
        """Call the function for each of these rows."""
        return torch.stack([torch.as_tensor(self.function(int(number))) for number in index])


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples by number, with the codec that makes network inputs of them.

    Build one with `from_arrays`, or with `from_function` of the example's number. ``stored`` reads rows as they are
    stored; its ``read`` is pure, and may be called from a background thread.

    ``codec``: unfitted. ``rows``: the stored rows that belong to the set, in order (None: all). ``labels``: int64 [n],
    of these only, or None. ``features``: stored like the examples, by entry of ``conditions``; ``missing``: an example
    with NaN lacks the feature. ``checksum`` identifies the content of ``stored`` and ``features`` (None: all of it is
    hashed).
    """

    name: str
    stored: RowReader
    codec: Codec
    conditions: ConditionSpec
    labels: NDArray[np.int64] | None = None
    rows: NDArray[np.int64] | None = None
    checksum: str | None = None
    features: Mapping[str, RowReader] = field(default_factory=dict)
    missing: bool = False

    @classmethod
    def from_arrays(
        cls,
        name: str,
        array: NDArray[Any],
        labels: NDArray[Any] | None = None,
        class_names: Sequence[str] | None = None,
        *,
        codec: Codec | None = None,
        conditions: Mapping[str, FeatureValues] | None = None,
        drop: bool = True,
        missing: bool = False,
    ) -> "Dataset":
        """Return the data set of an array's rows. Classes without names are called "0", "1", ...

        ``codec`` None: pixels for uint8 [n, H, W, C], vectors for float32 [n, D]. ``conditions``: features by name,
        numbers [n, ...] or functions of the example's number. A single one without labels is a lone tensor, otherwise
        conditions are a dict, with the class as "label". ``drop``: training may drop features, as guidance needs.
        ``missing``: an example with NaN lacks that feature. Raises DataError for another array without a codec, an
        empty one, features of another length or with NaN, and as `check_classes` does.
        """
        codec = codec or default_codec(array.dtype, array.ndim)
        if codec is None:
            found = f"{array.dtype} {list(array.shape)}"
            raise DataError(f"{name}: expected uint8 images [n, H, W, C] or float32 vectors [n, D], got {found}")
        given: dict[str, Any] = {"labels": labels, "class_names": class_names, "conditions": conditions}
        read = array.__getitem__
        dataset = cls.from_function(name, len(array), read, codec=codec, drop=drop, missing=missing, **given)
        return replace(dataset, stored=ArrayRows(name, array))

    @classmethod
    def from_function(
        cls,
        name: str,
        length: int,
        read: Callable[[int], Any],
        *,
        codec: Codec,
        fingerprint: str | None = None,
        labels: NDArray[Any] | None = None,
        class_names: Sequence[str] | None = None,
        conditions: Mapping[str, FeatureValues] | None = None,
        drop: bool = True,
        missing: bool = False,
    ) -> "Dataset":
        """Return the data set of the rows ``read(0)``, ..., ``read(length - 1)``, computed when they are needed.

        They are tensors or arrays of one shape and type, always the same for a number. ``fingerprint`` must change when
        any row or feature does; None: every row is read once to hash the content. The rest as in `from_arrays`;
        functions among ``conditions`` are checked when they are read.
        """
        if not length:
            raise DataError(f"{name}: the data set is empty")
        conditions, entries, features = conditions or {}, {}, {}
        if labels is not None:
            labels, class_names = check_classes(labels, class_names, length, f"{name}, labels")
            entries[LONE_LABEL] = Entry("label", (), class_names)
            if LONE_LABEL in conditions:
                raise DataError(f"{name}: {LONE_LABEL} is the name of the class; give the feature another one")
        for key, values in conditions.items():
            where = f"{name}, {key}"
            if not callable(values):
                check_feature(values, length, where)
            feature = ComputedRows(where, length, values) if callable(values) else ArrayRows(where, values)
            entry = LONE_FEATURE if labels is None and len(conditions) == 1 else key
            entries[entry] = Entry("feature", tuple(feature.read(np.arange(1)).shape[1:]), None, drop)
            features[entry] = feature
        spec = ConditionSpec(entries, single=len(entries) < 2)
        stored = ComputedRows(name, length, read)
        dataset = cls(name, stored, codec, spec, labels, checksum=fingerprint, features=features, missing=missing)
        for entry, feature in features.items():
            for index in _chunks(length if isinstance(feature, ArrayRows) else 0):
                dataset.feature(entry, index)
        return dataset

    def __len__(self) -> int:
        return len(self.stored) if self.rows is None else len(self.rows)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, or None for a set without labels."""
        return self.conditions.entries[LONE_LABEL].classes if LONE_LABEL in self.conditions.entries else None

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None for a set without labels."""
        return self.conditions.num_classes

    def condition(self, index: NDArray[np.int64]) -> Condition:
        """Return the conditions of these examples, features in the data's unit. Raises DataError for bad values."""
        named = {} if self.labels is None else {LONE_LABEL: torch.from_numpy(self.labels[index])}
        return self.conditions.of(named | {entry: self.feature(entry, index) for entry in self.features})

    def feature(self, entry: str, index: NDArray[np.int64]) -> Tensor:
        """Return one feature of these examples, float32 [B, ...]; it is NaN throughout where it is missing.

        Raises DataError that names a row with a value that is not finite.
        """
        numbers = index if self.rows is None else self.rows[index]
        values = self.features[entry].read(numbers).float()
        wrong = values.isinf() if self.missing else ~values.isfinite()
        if wrong.any():
            found, row = float(values[wrong][0]), numbers[int(wrong.nonzero()[0, 0])]
            hint = "" if self.missing else "; data.missing allows NaN, for examples without the feature"
            raise DataError(f"{self.features[entry].name}: row {row} has {found}, expected finite numbers{hint}")
        return fill_missing(values)

    def fitted_condition_codecs(self) -> dict[str, Codec]:
        """Return for each feature a codec with a mean and a deviation for each number, fitted to these examples.

        Raises DataError for a feature that is constant or that every example lacks.
        """
        codecs: dict[str, Codec] = {}
        for entry, stored in self.features.items():
            values = flat(self.feature(entry, stride(len(self))))
            given = values[~values.isnan().any(1)]
            if not len(given):
                raise DataError(f"{stored.name}: every example lacks this feature, there is nothing to learn")
            codecs[entry] = Vectors().fit(ArrayRows(stored.name, given.numpy()))
        return codecs

    def read(self, index: NDArray[np.int64]) -> Rows:
        """Return these examples as they are stored."""
        return self.stored.read(index if self.rows is None else self.rows[index])

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 (hex) of the content: type, shape, every example in order, conditions. Names do not count."""
        if self.checksum is None:
            first = self.read(np.arange(1))
            kind, (*sides, last) = str(first.dtype).removeprefix("torch."), first.shape[1:] or (1,)
            digest = hashlib.sha256(f"{kind} {len(self)} {(last, *sides)}".encode())  # as in runs of 0.1.0
            for index in _chunks(len(self)):
                digest.update(self.read(index).contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            digest = hashlib.sha256(self.checksum.encode())
            if self.rows is not None:
                digest.update(self.rows.astype("<i8").tobytes())
        if self.labels is not None:
            digest.update(b"labels" + self.labels.astype("<i8").tobytes())
        for entry in self.features:
            digest.update(f"condition {entry} {self.conditions.entries[entry].shape}".encode())
            for index in _chunks(0 if self.checksum else len(self)):
                digest.update(self.feature(entry, index).numpy().tobytes())
        return digest.hexdigest()

    def subset(self, index: NDArray[np.int64]) -> "Dataset":
        """Return these examples, in the order of ``index``, without copying; classes stay those of the whole."""
        rows = index if self.rows is None else self.rows[index]
        return replace(self, rows=rows, labels=None if self.labels is None else self.labels[index])


def _chunks(length: int) -> Iterator[NDArray[np.int64]]:
    """Yield the numbers below ``length`` in order, 1,024 at a time."""
    return (np.arange(start, min(start + 1024, length)) for start in range(0, length, 1024))


def check_feature(values: NDArray[Any], count: int, where: str) -> None:
    """Raise DataError that starts with ``where`` unless ``values`` are numbers [count, ...]."""
    if values.dtype.kind not in "biuf" or values.shape[:1] != (count,) or not values[:1].size:
        found = f"{values.dtype} {list(values.shape)}"
        raise DataError(f"{where}: expected numbers [{count}, ...], one row for each example, got {found}")


def check_classes(
    labels: NDArray[Any], names: Sequence[str] | None, count: int, where: str
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return labels as int64 [count], and the names of the classes, by default "0", "1", ...

    Raises DataError that starts with ``where`` unless there are ``count`` labels, all of them integers from 0 to the
    number of ``names`` (None: 100,000), excluded.
    """
    if labels.shape != (count,):
        raise DataError(f"{where}: expected one label per example, shape [{count}], got {list(labels.shape)}")
    if labels.dtype.kind not in "iubf":
        raise DataError(f"{where}: labels must be integers, got {labels.dtype}, row 0 is {labels[0]!r}")
    limit = 100_000 if names is None else len(names)  # a larger one is probably no class
    wrong = ~((labels >= 0) & (labels < limit) & (labels == np.floor(labels)))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"{where}: row {row} is {labels[row]}, expected an integer from 0 to {limit - 1}")
    labels = labels.astype(np.int64)
    return labels, tuple(map(str, range(labels.max(initial=-1) + 1)) if names is None else names)


def select_split(dataset: Dataset, heldout: float, which: Split) -> Dataset:
    """Return the examples to train on or those held out, a fraction ``heldout`` of the whole, from 0 to below 1.

    The two are disjoint, complete and the same in every run: they depend only on the labels in their order. Each class
    gives its fraction, to within one example. Raises DataError if either is empty, or none are held out.
    """
    check_value("split", which, Split)
    if heldout == 0 and which == "train":
        return dataset
    if heldout == 0:
        raise DataError(f"{dataset.name}: no examples are held out; --data.heldout 0.1 holds out a tenth")
    order = torch.randperm(len(dataset), generator=torch_generator(0, 0, "split")).numpy()
    if dataset.labels is not None:
        order = order[np.argsort(dataset.labels[order], kind="stable")]
    # Every 1/heldout-th of the shuffled examples in order of class: stratified, and exact in total.
    chosen = np.diff(np.floor(np.arange(len(dataset) + 1) * heldout + 0.5)) > 0
    if chosen.all() or not chosen.any():
        empty = "no examples to train on" if chosen.all() else "no examples held out"
        raise DataError(f"{dataset.name}: heldout {heldout:g} of {counted(len(dataset), 'example')} leaves {empty}")
    return dataset.subset(np.sort(order[chosen if which == "heldout" else ~chosen]))
