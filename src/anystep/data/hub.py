"""Data sets of the Hugging Face hub and parquet files, through the `datasets` library (the extra "data")."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from anystep.core.errors import DataError, reason
from anystep.data.base import check_classes
from anystep.data.image_source import Contents, EncodedImages, ImageSource
from anystep.data.images import Encoded
from anystep.data.source import Name


@dataclass(frozen=True)
class Hub(ImageSource):
    """Images of a hub data set, a parquet file, or a folder of either. Needs the extra "data"."""

    name: ClassVar[str] = "hub"

    path: Name
    """Hub id such as ylecun/mnist, a .parquet file, or a folder with parquet files or a saved data set."""
    config: Name | None = None
    """The hub data set's configuration, for those that have several."""
    split: Name = "train"
    """The data set's own split to read; part of it, as in train[:10%], if it is not a saved data set."""
    image: Name = "image"
    """Column of the images."""
    label: Name | None = "label"
    """Column of the labels: classes, integers from 0, or text; None for a set without classes."""

    def contents(self) -> Contents:
        """Return the images of the table, with their labels."""
        table = self._load()
        for field, column in (("image", self.image), ("label", self.label)):
            if column is not None and column not in table.column_names:
                found = ", ".join(table.column_names) or "none"
                raise DataError(f"{self.path}: no column {column!r} ({field}); the columns are {found}")
        table = self._undecoded(table)
        labels, names = (None, None) if self.label is None else self._labels(table, self.label)
        encoded = EncodedImages(
            title=f"{self.path} ({self.split})",
            num=len(table),
            read=lambda start, stop: [_bytes(cell) for cell in table[start:stop][self.image]],
            where=lambda number: f"{self.path} ({self.split}), {self.image}, row {number}",
            key=[self.name, table._fingerprint, self.image],
        )
        return Contents(Path(self.path).stem, encoded, labels, names)

    def _load(self) -> Any:
        """Return a `datasets.Dataset`. Raises DataError of two lines, whatever `datasets` or the network raises."""
        try:
            import datasets
        except ImportError as error:
            how = "in the checkout: pip install -e '.[data]'"
            raise DataError(f"hub: the library datasets is missing ({error})\n{how}") from error
        local = Path(self.path).expanduser()
        verbosity = datasets.logging.get_verbosity()
        datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # the error below says it all
        try:
            if local.is_file():
                files = {self.split.partition("[")[0]: str(local)}
                return datasets.load_dataset("parquet", data_files=files, split=self.split)
            if (local / "dataset_dict.json").is_file():
                return datasets.load_from_disk(str(local / self.split))
            if (local / "state.json").is_file():
                table = datasets.load_from_disk(str(local))
                saved = str(table.split or "train")
                if saved != self.split:
                    raise ValueError(f"it was saved alone, as {saved}, and has no other split")
                return table
            place = str(local) if local.is_dir() else self.path
            return datasets.load_dataset(place, self.config, split=self.split)
        except Exception as error:  # datasets, huggingface_hub, fsspec, pyarrow and the network each have their own
            raise DataError(
                f"hub: cannot load {self.path} ({self.split}): {reason(error).splitlines()[0][:300]}\n"
                "check the name, config and split, or the network; a local folder or .parquet file works offline"
            ) from error
        finally:
            datasets.logging.set_verbosity(verbosity)

    def _undecoded(self, table: Any) -> Any:
        """Return the table with its images as bytes or paths. Raises DataError for a column without images."""
        import datasets

        feature = table.features[self.image]
        if isinstance(feature, datasets.Image):
            return table.cast_column(self.image, datasets.Image(decode=False))
        stored = feature.dtype if isinstance(feature, datasets.Value) else None
        if stored in ("binary", "large_binary") or (isinstance(feature, dict) and "bytes" in feature):
            return table
        raise DataError(
            f"{self.path}: column {self.image!r} contains {feature}, expected images or the bytes of image files"
        )

    def _labels(self, table: Any, column: str) -> tuple[NDArray[np.int64], Sequence[str]]:
        """Return the label of each row and the names of the classes."""
        import datasets

        feature = table.features[column]
        values = table.select_columns([column])[:][column]
        where = f"{self.path}, {column}"
        if None in values:
            raise DataError(f"{where}: row {values.index(None)} has no label; without classes: --data.label None")
        if values and isinstance(values[0], str):
            names, labels = np.unique(values, return_inverse=True)
            return labels, names.tolist()
        if not isinstance(feature, datasets.ClassLabel | datasets.Value):
            raise DataError(f"{where}: contains {feature}, expected classes, integers or text")
        return check_classes(np.array(values), getattr(feature, "names", None), len(values), where)


def _bytes(cell: Any) -> Encoded:
    """Return the image of a cell: bytes, or a dict of bytes and path. An empty cell becomes a bad image."""
    if isinstance(cell, dict):
        data, path = cell.get("bytes"), cell.get("path")
        return Path(path) if data is None and path else (data or b"")
    return cell or b""
