"""What a data set is to the rest of the library: rows by number, the codec that reads them, and what each is given."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.codecs import Codec, RowReader, Rows, Vectors, usual
from anystep.core.errors import DataError
from anystep.core.random import generator
from anystep.flow.condition import LONE_FEATURE, LONE_LABEL, Condition, ConditionSpec, Entry, fill_missing, flat

Split = Literal["train", "heldout"]
#: a feature of every row: an array [n, ...], or a function of the row number
FeatureValues = NDArray[Any] | Callable[[int], Any]

#: beyond this a label is taken for a mistake, not for a class
MAX_CLASSES = 100_000
_CHUNK = 1024


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
    """Rows that a function of the row number returns, tensors or arrays of one shape and type."""

    name: str
    length: int
    function: Callable[[int], Any]

    def __len__(self) -> int:
        return self.length

    def read(self, index: NDArray[np.int64]) -> Rows:
        """Call the function for each of these rows."""
        return torch.stack([torch.as_tensor(self.function(int(number))) for number in index])


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """One feature of every stored row, float32 [n, ...]; rows without it are NaN throughout, if any may be ``missing``.

    ``rows``: those that belong to the set, in order (None: all).
    """

    name: str
    stored: RowReader
    missing: bool = False
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.stored) if self.rows is None else len(self.rows)

    def read(self, index: NDArray[np.int64]) -> Tensor:
        """Return these rows. Raises DataError that names a row with a value that is not finite."""
        numbers = index if self.rows is None else self.rows[index]
        values = self.stored.read(numbers).float()
        wrong = values.isinf() if self.missing else ~values.isfinite()
        if wrong.any():
            found, row = float(values[wrong][0]), numbers[int(wrong.nonzero()[0, 0])]
            hint = "" if self.missing else "; data.missing reads NaN as nothing given"
            raise DataError(f"{self.name}: row {row} has {found}, expected finite numbers{hint}")
        return fill_missing(values)


@dataclass(frozen=True, eq=False)
class GivenRows:
    """The rows that have a feature, flat: what its codec is fitted to."""

    feature: FeatureRows

    @property
    def name(self) -> str:
        """What the rows are called."""
        return self.feature.name

    def __len__(self) -> int:
        return len(self.feature)

    def read(self, index: NDArray[np.int64]) -> Rows:
        """Return those of these rows that have the feature. Raises DataError when none has."""
        values = flat(self.feature.read(index))
        given = values[~values.isnan().any(1)]
        if not len(given):
            raise DataError(f"{self.name}: no row has it, there is nothing to learn")
        return given


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows by number, with the codec that makes network inputs of them.

    ``stored`` reads rows as they are stored; its ``read`` is pure, and may be called from one background thread. Make
    a data set of an array with `from_arrays`, of a function of the row number with `from_function`.

    ``codec``: unfitted, the one for these rows. ``labels``: int64 [n] or None. ``rows``: which of the stored rows
    belong to the set, in order (None: all); ``labels`` and ``features`` have theirs only. ``checksum`` stands for the
    content of ``stored`` and ``features`` where reading all of it would take long (None: the content is hashed).
    ``features``: by entry of `conditions`; ``drop``: whether training may leave them out. Raises DataError for an empty
    set.
    """

    name: str
    stored: RowReader
    codec: Codec
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] | None = None
    rows: NDArray[np.int64] | None = None
    checksum: str | None = None
    features: Mapping[str, FeatureRows] = field(default_factory=dict)
    drop: bool = True

    def __post_init__(self) -> None:
        if len(self) == 0:
            raise DataError(f"{self.name}: the data set is empty")
        if (self.labels is None) != (self.class_names is None):
            raise ValueError(f"{self.name}: labels and class_names go together")
        _ = self.conditions  # checks names

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
        """Return the rows of an array, after checking the labels; classes without names are called "0", "1", ...

        ``codec`` None: pixels for uint8 [n, H, W, C], vectors for float32 [n, D]. ``conditions``: features by name,
        numbers [n, ...] or a function of the row number. One of them without labels is given as a lone tensor, else all
        are given as a dict, with the class as "label". ``drop``: training may leave them out, as guidance needs.
        ``missing``: a row with NaN is not given that feature. Raises DataError for another array without a codec, for
        an empty one, for features of another number of rows or with NaN, and as `check_labels` does.
        """
        codec = codec or usual(array.dtype, array.ndim)
        if codec is None:
            raise DataError(
                f"{name}: expected uint8 images [n, H, W, C] or float32 vectors [n, D], "
                f"got {array.dtype} {list(array.shape)}"
            )
        if array.size == 0:
            raise DataError(f"{name}: the data set is empty")
        features = _features(name, len(array), conditions or {}, labels is None, missing)
        classes = _classes(name, len(array), labels, class_names)
        return cls(name, ArrayRows(name, array), codec, *classes, features=features, drop=drop)

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
        """Return the rows that ``read(0)``, ..., ``read(length - 1)`` return: tensors or arrays of one shape and type.

        ``read`` must return the same row for the same number. ``fingerprint`` changes when any row or feature does;
        None: every row is read once to hash the content. The rest as in `from_arrays`; functions among ``conditions``
        are checked when they are read.
        """
        features = _features(name, length, conditions or {}, labels is None, missing)
        classes = _classes(name, length, labels, class_names)
        return cls(
            name, ComputedRows(name, length, read), codec, *classes, checksum=fingerprint, features=features, drop=drop
        )

    def __len__(self) -> int:
        return len(self.stored) if self.rows is None else len(self.rows)

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None for a set without labels."""
        return None if self.class_names is None else len(self.class_names)

    @cached_property
    def conditions(self) -> ConditionSpec:
        """What an example is given: its class, if there are any, then the features."""
        entries = {} if self.class_names is None else {LONE_LABEL: Entry("label", (), self.class_names)}
        for name, feature in self.features.items():
            entries[name] = Entry("feature", tuple(feature.read(np.arange(1)).shape[1:]), None, self.drop)
        return ConditionSpec(entries, single=len(entries) < 2)

    def condition(self, index: NDArray[np.int64]) -> Condition:
        """Return what these rows are given, as stored: features in the data's unit. Raises DataError for bad values."""
        named = {} if self.labels is None else {LONE_LABEL: torch.from_numpy(self.labels[index])}
        return self.conditions.of(named | {name: feature.read(index) for name, feature in self.features.items()})

    @property
    def condition_codecs(self) -> dict[str, Codec]:
        """The unfitted codec of each feature, which sees it flat: a mean and a deviation for each of its numbers."""
        return {name: Vectors() for name in self.features}

    def fitted_condition_codecs(self) -> dict[str, Codec]:
        """Return `condition_codecs`, fitted to these rows. Raises DataError for a feature without variation."""
        return {name: codec.fit(GivenRows(self.features[name])) for name, codec in self.condition_codecs.items()}

    def read(self, index: NDArray[np.int64]) -> Rows:
        """Return rows as they are stored, rows first."""
        return self.stored.read(index if self.rows is None else self.rows[index])

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 (hex) of the content: type, shape, every row in order, labels. Names do not count."""
        if self.checksum is None:
            first = self.read(np.arange(1))
            kind, (*sides, last) = str(first.dtype).removeprefix("torch."), first.shape[1:] or (1,)
            digest = hashlib.sha256(f"{kind} {len(self)} {(last, *sides)}".encode())  # as runs of 0.1.0 have it
            for start in range(0, len(self), _CHUNK):
                rows = self.read(np.arange(start, min(start + _CHUNK, len(self))))
                digest.update(rows.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            digest = hashlib.sha256(self.checksum.encode())
            if self.rows is not None:
                digest.update(self.rows.astype("<i8").tobytes())
        if self.labels is not None:
            digest.update(b"labels" + self.labels.astype("<i8").tobytes())
        for name, feature in self.features.items():
            digest.update(f"condition {name} {self.conditions.entries[name].shape}".encode())
            for start in range(0, 0 if self.checksum else len(self), _CHUNK):
                values = feature.read(np.arange(start, min(start + _CHUNK, len(self))))
                digest.update(values.numpy().tobytes())
        return digest.hexdigest()

    def subset(self, index: NDArray[np.int64]) -> "Dataset":
        """Return the rows of ``index``, in that order, without copying; classes stay those of the whole."""
        rows = index if self.rows is None else self.rows[index]
        features = {name: replace(feature, rows=rows) for name, feature in self.features.items()}
        labels = None if self.labels is None else self.labels[index]
        return replace(self, rows=rows, labels=labels, features=features)


def _classes(
    name: str, rows: int, labels: NDArray[Any] | None, class_names: Sequence[str] | None
) -> tuple[NDArray[np.int64] | None, tuple[str, ...] | None]:
    """Return checked labels and the names of their classes, or None twice."""
    if labels is None:
        return None, None
    classes = None if class_names is None else len(class_names)
    checked = check_labels(labels, rows=rows, classes=classes, where=f"{name}, labels")
    if class_names is None:
        class_names = [str(k) for k in range(int(checked.max(initial=-1)) + 1)]
    return checked, tuple(class_names)


def _features(
    name: str, count: int, conditions: Mapping[str, FeatureValues], lone: bool, missing: bool
) -> dict[str, FeatureRows]:
    """Return features by entry, arrays checked."""
    features = {}
    for key, values in conditions.items():
        where = f"{name}, {key}"
        if callable(values):
            features[key] = FeatureRows(where, ComputedRows(where, count, values), missing)
            continue
        check_feature(values, count, where)
        features[key] = FeatureRows(where, ArrayRows(where, values), missing)
        for start in range(0, count, _CHUNK):
            features[key].read(np.arange(start, min(start + _CHUNK, count)))
    if LONE_LABEL in features and not lone:
        raise DataError(f"{name}: {LONE_LABEL} is the name of the class; give the feature another one")
    return dict(zip([LONE_FEATURE], features.values(), strict=True)) if lone and len(features) == 1 else features


def check_feature(values: NDArray[Any], count: int, where: str) -> None:
    """Raise DataError, beginning with ``where``, unless these are numbers, ``count`` rows of them."""
    if values.dtype.kind not in "biuf" or values.shape[:1] != (count,) or not values[:1].size:
        found = f"{values.dtype} {list(values.shape)}"
        raise DataError(f"{where}: expected numbers [{count}, ...], one row for each example, got {found}")


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
