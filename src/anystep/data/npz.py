"""Arrays in an .npz file: images as pixels or encoded one after the other, or vectors."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from anystep.core.errors import DataError, UsageError
from anystep.data.base import Dataset, Split, check_feature, check_labels, part
from anystep.data.image_source import ImageSource
from anystep.data.images import Encoded
from anystep.data.pictures import Pictures, decode_all
from anystep.data.source import Name, absolute


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
    """Key of the labels, integers from 0, one a row; None for a set without classes."""

    offsets: Name | None = None
    """Key of n + 1 offsets when the images are PNG, JPEG or WebP files laid end to end in one uint8 array."""

    classes: Name | None = None
    """Key of the names of the classes; None calls them 0, 1, ..."""

    conditions: tuple[str, ...] = ()
    """Keys of features that examples are conditioned on: numbers [n, ...], one row for each example."""

    missing: bool = False
    """Allow NaN in features: an example with any is not given that feature."""

    drop: bool = True
    """Let training leave features out, so that samples can be drawn without them, and guided."""

    def check_combinations(self) -> None:
        """Raise UsageError for names of classes without labels, and for missing features that are never left out."""
        if self.missing and not self.drop:
            raise UsageError("data.missing needs data.drop: an example without a feature is one that it is left out of")
        if self.classes is not None and self.labels is None:
            raise UsageError(f"data.classes must be None without labels, got {self.classes!r}")

    def located(self) -> Self:
        """Return the source with its path made absolute."""
        return replace(self, path=absolute(self.path))

    def open(self, split: Split = "train") -> Dataset:
        """Return the file's rows."""
        path = Path(self.path).expanduser().resolve()
        fields = ("images", "labels", "offsets", "classes")
        keys = [(name, key) for name in fields if (key := getattr(self, name)) is not None]
        arrays = _load(path, [*keys, *(("conditions", key) for key in self.conditions)])
        array = arrays[self.images]
        offsets = None if self.offsets is None else arrays[self.offsets]
        where = f"{path}, {self.images}"
        if offsets is not None:
            _check_offsets(array, offsets, f"{path}, {self.offsets}")
        elif array.dtype.kind == "f" and array.ndim == 2:
            array = _vectors(array, where)
        else:
            array = _pixels(array, where)
        count = len(array) if offsets is None else len(offsets) - 1
        names = None if self.classes is None else [str(name) for name in arrays[self.classes]]
        labels = None
        if self.labels is not None:
            classes = None if names is None else len(names)
            labels = check_labels(arrays[self.labels], rows=count, classes=classes, where=f"{path}, {self.labels}")
        features: dict[str, Any] = {key: arrays[key] for key in self.conditions}
        for key, values in features.items():
            check_feature(values, count, f"{path}, {key}")
        if array.dtype == np.float32:
            self._only_images(where)
        elif offsets is not None or self._changes(array):
            array, rows = self._decode(path, array, offsets)
            if labels is not None and names is None:
                names = [str(k) for k in range(int(labels.max()) + 1)]
            labels = None if labels is None else labels[rows]
            features = {key: values[rows] for key, values in features.items()}
        dataset = Dataset.from_arrays(
            str(path), array, labels, names, conditions=features, drop=self.drop, missing=self.missing
        )
        return part(replace(dataset, name=path.stem), self.heldout, split)

    def _only_images(self, where: str) -> None:
        for field, unset in (("size", None), ("channels", "auto")):
            if getattr(self, field) != unset:
                raise DataError(f"{where}: holds vectors, and {field} is for images; leave it at {unset}")

    def _changes(self, pixels: NDArray[Any]) -> bool:
        height, width, channels = pixels.shape[1:]
        resized = self.size is not None and (height, width) != (self.size, self.size)
        wanted = {"auto": (1, 3), "grey": (1,), "rgb": (3,)}[self.channels]
        return len(pixels) > 0 and (resized or channels not in wanted)

    def _decode(
        self, path: Path, array: NDArray[Any], offsets: NDArray[Any] | None
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        def read(start: int, stop: int) -> list[Encoded]:
            if offsets is None:
                return list(array[start:stop])
            return [array[offsets[row] : offsets[row + 1]].tobytes() for row in range(start, stop)]

        stat = path.stat()
        pictures = Pictures(
            title=str(path),
            count=len(array) if offsets is None else len(offsets) - 1,
            read=read,
            where=lambda row: f"{path}, {self.images}, row {row}",
            key=[self.name, str(path), stat.st_size, stat.st_mtime_ns, self.images, self.offsets],
        )
        return decode_all(pictures, self.decoding())


def _load(path: Path, keys: Sequence[tuple[str, str]]) -> dict[str, NDArray[Any]]:
    """Return the arrays that the fields name, ``keys`` (field, key), by key."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not a complete .npz file (written by np.savez)")
    key = ""
    try:
        with np.load(path, allow_pickle=False) as file:
            for field, key in keys:
                if key not in file.files:
                    there = ", ".join(file.files) or "nothing"
                    hint = "; without classes: --data.labels None" if field == "labels" else f": --data.{field} NAME"
                    raise DataError(f"{path}: no array {key!r}; the file holds {there}{hint}")
            loaded = {}
            for _, key in keys:
                loaded[key] = file[key]
            return loaded
    except DataError:
        raise
    except Exception as error:  # a damaged zip raises zipfile's, zlib's, lzma's and NumPy's errors
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{path}, {key}: cannot be read ({reason})") from error


def _check_offsets(array: NDArray[Any], offsets: NDArray[Any], where: str) -> None:
    if array.dtype != np.uint8 or array.ndim != 1:
        raise DataError(
            f"{where}: with offsets, images must be one uint8 array of file bytes, "
            f"got {array.dtype} {list(array.shape)}"
        )
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or len(offsets) < 2:
        raise DataError(f"{where}: expected n + 1 integer offsets, got {offsets.dtype} {list(offsets.shape)}")
    wrong = np.flatnonzero((offsets[1:] < offsets[:-1]) | (offsets[:-1] < 0) | (offsets[1:] > len(array)))
    if len(wrong):
        row = wrong[0]
        raise DataError(
            f"{where}: row {row} would be bytes {offsets[row]} to {offsets[row + 1]} of {len(array)}; "
            "offsets must rise from 0 to the end"
        )


def _vectors(array: NDArray[Any], where: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        vectors = array.astype(np.float32)
    wrong = np.argwhere(~np.isfinite(vectors))
    if len(wrong):
        row, column = wrong[0]
        raise DataError(f"{where}: row {row} has {array[row, column]} in column {column}, expected finite float32")
    return vectors


def _pixels(array: NDArray[Any], where: str) -> NDArray[np.uint8]:
    found = f"got {array.dtype} {list(array.shape)}"
    if array.ndim not in (3, 4):
        raise DataError(f"{where}: expected uint8 images [n, H, W] or [n, H, W, C] or float vectors [n, D], {found}")
    if array.dtype != np.uint8:
        raise DataError(f"{where}: images must be uint8, 0 to 255, {found}")
    pixels: NDArray[np.uint8] = array[..., None] if array.ndim == 3 else array
    if pixels.shape[-1] not in (1, 2, 3, 4):
        hint = "; move the channels to the last axis" if pixels.shape[1] in (1, 2, 3, 4) else ""
        raise DataError(f"{where}: images must have 1 to 4 channels, [n, H, W, C], {found}{hint}")
    return pixels
