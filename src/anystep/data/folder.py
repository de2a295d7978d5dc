"""A folder of images; sub-folders are classes."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple, Self

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from anystep.core.errors import DataError
from anystep.data.base import Dataset, Split, part
from anystep.data.image_source import ImageSource
from anystep.data.images import EXTENSIONS
from anystep.data.pictures import Pictures, decode_all
from anystep.data.source import Name, absolute


class _File(NamedTuple):
    """An image file: its path below the folder, and what tells that it has changed."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Folder(ImageSource):
    """A folder of PNG, JPEG and WebP images. Each is decoded once, into a cache (ANYSTEP_CACHE, ~/.cache/anystep).

    Sub-folders are classes, with whatever lies deeper in them; images directly in the folder have no class. Hidden
    files and other kinds of files are ignored.
    """

    name: ClassVar[str] = "folder"

    path: Name
    """The folder."""

    labels: bool = True
    """Use sub-folders as classes; without, all images in it, however deep, are one set without classes."""

    workers: Annotated[int, Ge(0)] = 0
    """Threads that decode images; 0 means one a core."""

    def located(self) -> Self:
        """Return the source with its path made absolute."""
        return replace(self, path=absolute(self.path))

    def open(self, split: Split = "train") -> Dataset:
        """Return the folder's images, decoded now or found in the cache."""
        root = Path(self.path).expanduser().resolve()
        files = _images(root)
        names, labels = _classes(root, files) if self.labels else (None, None)
        pictures = Pictures(
            title=str(root),
            count=len(files),
            read=lambda start, stop: [root / file.path for file in files[start:stop]],
            where=lambda row: str(root / files[row].path),
            key=[self.name, str(root), *files],
        )
        images, rows = decode_all(pictures, self.decoding(self.workers))
        labels = None if labels is None else labels[rows]
        return part(Dataset.from_arrays(root.name, images, labels, names), self.heldout, split)


def _images(root: Path) -> list[_File]:
    """Return the image files below ``root`` in order of their path. Raises DataError when there are none."""
    if not root.is_dir():
        raise DataError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}")
    try:
        files = sorted(_walk(root, "", frozenset()))
    except OSError as error:
        raise DataError(f"{error.filename}: cannot list the folder ({error.strerror})") from error
    if not files:
        raise DataError(f"{root}: no images in this folder; looked for {', '.join(EXTENSIONS)}")
    return files


def _walk(root: Path, below: str, above: frozenset[tuple[int, int]]) -> Iterator[_File]:
    """Yield image files, following links but no link to a folder that holds it (``above``: those folders)."""
    here = root / below
    stat = here.stat()
    identity = (stat.st_dev, stat.st_ino)
    if identity in above:
        return
    with os.scandir(here) as entries:
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(root, path, above | {identity})
            elif entry.name.lower().endswith(EXTENSIONS):
                try:
                    found = entry.stat()
                    yield _File(path, found.st_size, found.st_mtime_ns)
                except FileNotFoundError:  # a link to nowhere: an image that cannot be read, reported as such
                    yield _File(path, -1, -1)


def _classes(root: Path, files: list[_File]) -> tuple[list[str], NDArray[np.int64]] | tuple[None, None]:
    """Return class names and each file's label, or None twice when no image lies in a sub-folder."""
    folders = [file.path.partition("/")[0] if "/" in file.path else None for file in files]
    names = sorted({folder for folder in folders if folder is not None})
    if not names:
        return None, None
    if None in folders:
        alone = files[folders.index(None)].path
        raise DataError(
            f"{root}: images lie both directly in the folder ({alone}) and in sub-folders ({names[0]}/)\n"
            "move them into class sub-folders, or use all without classes: --data.no-labels"
        )
    number = {name: label for label, name in enumerate(names)}
    return names, np.array([number[folder] for folder in folders if folder is not None])
