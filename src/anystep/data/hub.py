"""Data sets of the Hugging Face hub and parquet files, through the `datasets` library (the extra "data")."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from anystep.core.errors import DataError
from anystep.data.base import Dataset, Split, check_labels, part
from anystep.data.image_source import ImageSource
from anystep.data.images import Encoded
from anystep.data.pictures import Pictures, decode_all
from anystep.data.source import Name, absolute


@dataclass(frozen=True)
class Hub(ImageSource):
    """Images of a hub data set, a parquet file, or a folder of either. Needs the extra "data"."""

    name: ClassVar[str] = "hub"

    path: Name
    """Hub id such as ylecun/mnist, a .parquet file, or a folder with parquet files or a saved data set."""

    config: Name | None = None
    """The hub data set's configuration, for those that have several."""

    split: Name = "train"
    """The data set's own split to read; part of it, as in train[:10%], where the set is not a saved one."""

    image: Name = "image"
    """Column of the images."""

    label: Name | None = "label"
    """Column of the labels: classes, integers from 0, or text; None for a set without classes."""

    def located(self) -> Self:
        """Return the source with its path made absolute, unless nothing is there: then it is a hub id."""
        return replace(self, path=absolute(self.path)) if Path(self.path).expanduser().exists() else self

    def open(self, split: Split = "train") -> Dataset:
        """Return the data set's images, decoded now or found in the cache."""
        table = _encoded(self._load(), self.image, self.path)
        names, labels = _labels(table, self.label, self.path)

        def read(start: int, stop: int) -> list[Encoded]:
            return [_bytes(cell) for cell in table[start:stop][self.image]]

        pictures = Pictures(
            title=f"{self.path} ({self.split})",
            count=len(table),
            read=read,
            where=lambda row: f"{self.path} ({self.split}), {self.image}, row {row}",
            key=[self.name, table._fingerprint, self.image],
        )
        images, rows = decode_all(pictures, self.decoding())
        labels = None if labels is None else labels[rows]
        name = Path(self.path).stem
        return part(Dataset.from_arrays(name, images, labels, names), self.heldout, split)

    def _load(self) -> Any:
        """Return a `datasets.Dataset`. Raises DataError, one line, whatever `datasets` or the network says."""
        try:
            import datasets
        except ImportError as error:
            raise DataError(
                f"hub: the library datasets is missing ({error})\ninstall it in the checkout: pip install -e '.[data]'"
            ) from error
        local = Path(self.path).expanduser()
        try:
            if local.is_file():
                files = {self.split.partition("[")[0]: str(local)}
                return datasets.load_dataset("parquet", data_files=files, split=self.split)
            if (local / "dataset_dict.json").is_file():
                return datasets.load_from_disk(str(local / self.split))
            if (local / "state.json").is_file():
                table = datasets.load_from_disk(str(local))
                if str(table.split or "train") != self.split:
                    raise ValueError(f"it was saved alone, as {table.split or 'train'}, and has no other split")
                return table
            place = str(local) if local.is_dir() else self.path
            return datasets.load_dataset(place, self.config, split=self.split)
        except Exception as error:  # datasets, huggingface_hub, fsspec, pyarrow and the network each have their own
            reason = (str(error) or type(error).__name__).splitlines()[0][:300]
            raise DataError(
                f"hub: cannot load {self.path} ({self.split}): {reason}\n"
                "check the name, config and split, or the network; a local folder or .parquet file works offline"
            ) from error


def _encoded(table: Any, image: str, path: str) -> Any:
    """Return the table with its image column left encoded. Raises DataError for a column that holds no images."""
    import datasets

    _check_column(table, image, "image", path)
    feature = table.features[image]
    if isinstance(feature, datasets.Image):
        return table.cast_column(image, datasets.Image(decode=False))
    stored = feature.dtype if isinstance(feature, datasets.Value) else None
    if stored in ("binary", "large_binary") or (isinstance(feature, dict) and "bytes" in feature):
        return table
    raise DataError(f"{path}: column {image!r} holds {feature}, expected images or the bytes of image files")


def _check_column(table: Any, column: str, field: str, path: str) -> None:
    if column not in table.column_names:
        there = ", ".join(table.column_names) or "none"
        raise DataError(f"{path}: no column {column!r} ({field}); the columns are {there}")


def _bytes(cell: Any) -> Encoded:
    """Return the file of a cell: bytes, or a dict of bytes and path. An empty cell becomes an image that is bad."""
    if isinstance(cell, dict):
        data, path = cell.get("bytes"), cell.get("path")
        return Path(path) if data is None and path else (data or b"")
    return cell or b""


def _labels(
    table: Any, column: str | None, path: str
) -> tuple[list[str] | None, NDArray[np.int64]] | tuple[None, None]:
    """Return the names of the classes and each row's label, or None twice."""
    if column is None:
        return None, None
    import datasets

    _check_column(table, column, "label", path)
    feature = table.features[column]
    values = table.select_columns([column])[:][column]
    where = f"{path}, {column}"
    if None in values:
        raise DataError(f"{where}: row {values.index(None)} has no label; --data.label None does without classes")
    if isinstance(feature, datasets.ClassLabel):
        names = list(feature.names)
        return names, check_labels(np.array(values), rows=len(values), classes=len(names), where=where)
    if values and isinstance(values[0], str):
        names = sorted(set(values))
        number = {name: label for label, name in enumerate(names)}
        return names, np.array([number[value] for value in values])
    if not isinstance(feature, datasets.Value):
        raise DataError(f"{where}: holds {feature}, expected classes, integers or text")
    labels = check_labels(np.array(values), rows=len(values), classes=None, where=where)
    return [str(k) for k in range(int(labels.max(initial=-1)) + 1)], labels
