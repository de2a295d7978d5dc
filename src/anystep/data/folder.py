"""A folder of images; sub-folders are classes."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, NoReturn

import numpy as np
from annotated_types import Ge

from anystep.core.errors import DataError
from anystep.data.image_source import Contents, EncodedImages, ImageSource
from anystep.data.images import EXTENSIONS
from anystep.data.source import Name


@dataclass(frozen=True)
class Folder(ImageSource):
    """A folder of PNG, JPEG and WebP images. Each is decoded once, into a cache (ANYSTEP_CACHE, ~/.cache/anystep).

    Sub-folders are classes, with everything below them; images directly in the folder have no class. Hidden files and
    other kinds of files are ignored.
    """

    name: ClassVar[str] = "folder"

    path: Name
    """The folder."""
    labels: bool = True
    """Use sub-folders as classes; otherwise all images below the folder are one set without classes."""
    workers: Annotated[int, Ge(0)] = 0
    """Threads that decode images; 0 means one per core."""

    def contents(self) -> Contents:
        """Return the folder's images, labelled by sub-folder."""
        root = Path(self.path).expanduser().resolve()
        files, _ = list_images(root)
        folders = [path.partition("/")[0] if "/" in path else "" for path, _, _ in files]
        names = sorted({*folders} - {""}) if self.labels else []
        if names and "" in folders:
            raise DataError(
                f"{root}: contains images both directly ({files[folders.index('')][0]}) and in sub-folders "
                f"({names[0]}/)\nmove them into class sub-folders, or use all without classes: --data.no-labels"
            )
        encoded = EncodedImages(
            title=str(root),
            num=len(files),
            read=lambda start, stop: [root / path for path, _, _ in files[start:stop]],
            where=lambda number: str(root / files[number][0]),
            key=[self.name, str(root), *files],
            workers=self.workers,
        )
        return Contents(root.name, encoded, np.searchsorted(names, folders) if names else None, names or None)


def list_images(root: Path) -> tuple[list[tuple[str, int, int]], list[str]]:
    """Return (path below ``root``, size, time of modification in ns) of each image file, in order of path.

    And the paths of the other files, which are ignored; hidden folders are not entered. Links are followed, except one
    to a folder that contains it. Raises DataError if there are no images.
    """

    def fail(error: OSError) -> NoReturn:
        raise DataError(f"{error.filename}: cannot list the folder ({error.strerror})") from error

    if not root.is_dir():
        hint = "; arrays have the recipes npz32-* and vectors-*" if root.suffix == ".npz" else ""
        raise DataError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}{hint}")
    files: list[tuple[str, int, int]] = []
    others: list[str] = []
    for place, folders, names in os.walk(root, followlinks=True, onerror=fail):
        here = Path(place)
        containing = {folder.resolve() for folder in (here, *here.parents)}
        folders[:] = [name for name in folders if name[0] != "." and (here / name).resolve() not in containing]
        for name in names:
            path = str(here.relative_to(root) / name)
            if name[0] == "." or not name.lower().endswith(EXTENSIONS):
                others.append(path)
                continue
            try:
                stat = (here / name).stat()
                files.append((path, stat.st_size, stat.st_mtime_ns))
            except FileNotFoundError:  # a link to a missing file: decoding reports it
                files.append((path, -1, -1))
    if not files:
        found = f", found {by_kind(others)}" if others else ""
        raise DataError(f"{root}: no images in this folder; looked for {', '.join(EXTENSIONS)}{found}")
    return sorted(files), sorted(others)


def by_kind(files: Sequence[str]) -> str:
    """Return how many files of each extension there are, the most first: "7 .gif, 1 .txt"."""
    kinds = Counter(Path(file).suffix.lower() or Path(file).name for file in files)
    shown = [f"{count} {kind}" for kind, count in kinds.most_common(4)]
    return ", ".join(shown) + (", ..." if len(kinds) > len(shown) else "")
