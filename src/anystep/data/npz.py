"""Arrays in an .npz file: images as pixels or as encoded files, or vectors."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from anystep.core.errors import DataError, UsageError, reason
from anystep.data.base import Dataset, Split, check_classes, check_feature, select_split
from anystep.data.image_source import Contents, EncodedImages, ImageSource
from anystep.data.images import Encoded
from anystep.data.source import Name


@dataclass(frozen=True)
class Npz(ImageSource):
    """Arrays in one .npz file: uint8 images [n, H, W] or [n, H, W, C], encoded images, or float vectors [n, D].

    Nothing pickled is ever loaded. Our own samples_<steps>.npz is read with images = samples.
    """

    name: ClassVar[str] = "npz"

    path: Name
    """The .npz file."""
    images: Name = "images"
    """Key of the images or vectors in the file."""
    labels: Name | None = "labels"
    """Key of the labels, integers from 0, one per example; None for a set without classes."""
    offsets: Name | None = None
    """Key of n + 1 offsets when the images are PNG, JPEG or WebP files, concatenated in one uint8 array."""
    classes: Name | None = None
    """Key of the names of the classes; None calls them 0, 1, ..."""
    conditions: tuple[str, ...] = ()
    """Keys of features that examples are conditioned on: numbers [n, ...], one row for each example."""
    missing: bool = False
    """Allow NaN in features: an example with NaN lacks that feature."""
    drop: bool = True
    """Let training drop features, so that samples can be generated without them, and with guidance."""

    def check_combinations(self) -> None:
        """Raise UsageError for names of classes without labels, and for missing features that are never dropped."""
        if self.missing and not self.drop:
            raise UsageError("data.missing needs data.drop: an example that lacks a feature is one with it dropped")
        if self.classes is not None and self.labels is None:
            raise UsageError(f"data.classes must be None without labels, got {self.classes!r}")

    def open(self, split: Split = "train") -> Dataset:
        """Return the examples of the file."""
        file = self._read()
        wanted = {"auto": (1, 3), "grey": (1,), "rgb": (3,)}[self.channels]
        array: NDArray[Any] = file.array
        kept: NDArray[np.int64] | slice = slice(None)
        right_size = self.size is None or array.shape[1:3] == (self.size, self.size)
        if not (array.ndim == 2 or (array.ndim == 4 and right_size and array.shape[3] in wanted)):
            array, kept = self.decode_all(self._encoded(file))  # else vectors, or pixels that need no change
        labels = None if file.labels is None else file.labels[kept]
        features: dict[str, Any] = {key: values[kept] for key, values in file.features.items()}
        options: dict[str, Any] = {"conditions": features, "drop": self.drop, "missing": self.missing}
        dataset = Dataset.from_arrays(str(file.path), array, labels, file.class_names, **options)
        return select_split(replace(dataset, name=file.path.stem), self.heldout, split)

    def contents(self) -> Contents | None:
        """Return the file's images; None for vectors."""
        file = self._read()
        if file.array.ndim == 2:
            return None
        return Contents(file.path.stem, self._encoded(file), file.labels, file.class_names)

    def _read(self) -> "_File":
        """Return the arrays, checked. Raises DataError."""
        path = Path(self.path).expanduser().resolve()
        fields = [(field, getattr(self, field)) for field in ("images", "labels", "offsets", "classes")]
        keys = [*fields, *(("conditions", key) for key in self.conditions)]
        arrays = _read_arrays(path, [(field, key) for field, key in keys if key is not None])
        array, offsets = arrays[self.images], None if self.offsets is None else arrays[self.offsets]
        where = f"{path}, {self.images}"
        if offsets is not None:
            _check_offsets(array, offsets, f"{path}, {self.offsets}")
        elif array.dtype.kind == "f" and array.ndim == 2:
            array = self._vectors(array, where)
        else:
            array = _pixels(array, where)
        count = len(array) if offsets is None else len(offsets) - 1
        names = None if self.classes is None else tuple(map(str, arrays[self.classes]))
        labels = None
        if self.labels is not None:
            labels, names = check_classes(arrays[self.labels], names, count, f"{path}, {self.labels}")
        features = {key: arrays[key] for key in self.conditions}
        for key, values in features.items():
            check_feature(values, count, f"{path}, {key}")
        return _File(path, array, offsets, count, labels, names, features)

    def _vectors(self, array: NDArray[Any], where: str) -> NDArray[np.float32]:
        if self.size is not None or self.channels != "auto":
            raise DataError(f"{where}: contains vectors; data.size and data.channels are for images")
        with np.errstate(over="ignore"):
            vectors = array.astype(np.float32)
        wrong = np.argwhere(~np.isfinite(vectors))
        if len(wrong):
            row, column = wrong[0]
            raise DataError(f"{where}: row {row} has {array[row, column]} in column {column}, expected finite float32")
        return vectors

    def _encoded(self, file: "_File") -> EncodedImages:
        """Return the images, pixels or the bytes of files, for decoding."""
        array, offsets = file.array, file.offsets

        def read(start: int, stop: int) -> list[Encoded]:
            if offsets is None:
                return list(array[start:stop])
            return [array[offsets[n] : offsets[n + 1]].tobytes() for n in range(start, stop)]

        path, stat = file.path, file.path.stat()
        return EncodedImages(
            title=str(path),
            num=file.count,
            read=read,
            where=lambda number: f"{path}, {self.images}, row {number}",
            key=[self.name, str(path), stat.st_size, stat.st_mtime_ns, self.images, self.offsets],
        )


@dataclass(frozen=True)
class _File:
    """The arrays of a file, checked: ``array`` is pixels [n, H, W, C], vectors [n, D], or images at ``offsets``."""

    path: Path
    array: NDArray[Any]
    offsets: NDArray[Any] | None
    count: int
    labels: NDArray[np.int64] | None
    class_names: Sequence[str] | None
    features: Mapping[str, NDArray[Any]]


def array_forms(path: Path) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Return type and shape of each array of an .npz file by name, without reading the arrays. Raises DataError."""
    _read_arrays(path, [])
    forms = {}
    with zipfile.ZipFile(path) as file:
        for entry in file.namelist():
            with file.open(entry) as array:
                try:
                    first = npy.read_magic(array) == (1, 0)
                    shape, _, dtype = (npy.read_array_header_1_0 if first else npy.read_array_header_2_0)(array)
                except ValueError:  # another kind of file
                    continue
                forms[entry.removesuffix(".npy")] = (dtype, shape)
    return forms


def _read_arrays(path: Path, keys: Sequence[tuple[str, str]]) -> dict[str, NDArray[Any]]:
    """Return the arrays of ``keys``, (field of `Npz`, key in the file), by key."""
    if path.is_dir():
        raise DataError(f"{path}: a folder, expected an .npz file; folders of images have the recipes folder32-*")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not a complete .npz file (written by np.savez)")
    arrays: dict[str, NDArray[Any]] = {}
    key = ""
    try:
        with np.load(path, allow_pickle=False) as file:
            for field, key in keys:
                if key not in file.files:
                    found = ", ".join(file.files) or "nothing"
                    hint = "; without classes: --data.labels None" if field == "labels" else f": --data.{field} NAME"
                    raise DataError(f"{path}: no array {key!r}; the file contains {found}{hint}")
                arrays[key] = file[key]
    except DataError:
        raise
    except Exception as error:  # a damaged zip raises zipfile's, zlib's, lzma's and NumPy's errors
        raise DataError(f"{path}, {key}: cannot be read ({reason(error).splitlines()[0]})") from error
    return arrays


def _check_offsets(array: NDArray[Any], offsets: NDArray[Any], where: str) -> None:
    wrong_type = array.dtype != np.uint8 or offsets.dtype.kind not in "iu"
    if wrong_type or array.ndim != 1 or offsets.ndim != 1 or len(offsets) < 2:
        found = " and ".join(f"{each.dtype} {list(each.shape)}" for each in (array, offsets))
        raise DataError(f"{where}: expected one uint8 array of file bytes and n + 1 integer offsets, got {found}")
    wrong = np.flatnonzero((offsets[1:] < offsets[:-1]) | (offsets[:-1] < 0) | (offsets[1:] > len(array)))
    if len(wrong):
        extent = f"bytes {offsets[wrong[0]]} to {offsets[wrong[0] + 1]} of {len(array)}"
        raise DataError(f"{where}: row {wrong[0]} would be {extent}; offsets must rise from 0 to the end")


def _pixels(array: NDArray[Any], where: str) -> NDArray[np.uint8]:
    pixels = array[..., None] if array.ndim == 3 else array
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or not 1 <= pixels.shape[-1] <= 4:
        raise DataError(
            f"{where}: expected uint8 images [n, H, W] or [n, H, W, C] with the 1 to 4 channels last, "
            f"or float vectors [n, D], got {array.dtype} {list(array.shape)}"
        )
    return pixels
