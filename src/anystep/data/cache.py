"""A folder of finished work on disk: an entry is there completely or not at all."""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from anystep.core.errors import DataError

VARIABLE = "ANYSTEP_CACHE"
_ABANDONED = 24 * 3600.0  # seconds


def cache_root() -> Path:
    """Return the cache folder: the environment's ANYSTEP_CACHE, or ~/.cache/anystep."""
    place = os.environ.get(VARIABLE)
    return Path(place).expanduser() if place else Path.home() / ".cache" / "anystep"


def cache_key(parts: Iterable[object]) -> str:
    """Return the sha256 (hex) of ``parts``, told apart from any other division of the same text."""
    digest = hashlib.sha256()
    for item in parts:
        text = repr(item).encode("utf-8", "surrogateescape")
        digest.update(f"{len(text)}:".encode() + text)
    return digest.hexdigest()


def cached(key: str, build: Callable[[Path], None]) -> Path:
    """Return the folder of entry ``key``, after ``build(folder)`` has filled it if it was not there.

    It is built beside and renamed, so a run that dies leaves no half entry, and of two processes that build the same
    entry one wins. Raises DataError when the cache cannot be written.
    """
    root = cache_root()
    entry = root / key
    if entry.is_dir():
        return entry
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        building = Path(tempfile.mkdtemp(prefix="building-", dir=root))
        try:
            build(building)
            building.chmod(0o755)  # mkdtemp's 0o700 would lock other users out of a shared cache
            _publish(building, entry)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"cannot write the cache {root} ({error.strerror or error})\n"
            f"set {VARIABLE} to a folder that can be written and has room"
        ) from error
    return entry


def _sweep(root: Path) -> None:
    """Remove what killed runs left behind: builds that nothing was written to for a day."""
    for left in root.glob("building-*"):
        with suppress(OSError):  # another process may be sweeping too
            if time.time() - max(item.stat().st_mtime for item in (left, *left.iterdir())) > _ABANDONED:
                shutil.rmtree(left, ignore_errors=True)


def _publish(building: Path, entry: Path) -> None:
    try:
        building.rename(entry)
    except OSError:
        if not entry.is_dir():  # otherwise another process was first, with the same content
            raise


class RowWriter:
    """Append rows to an .npy file whose length is known only at the end. A context manager.

    NumPy pads an .npy header so that the first axis can grow in place: the header is written again at the end.
    Plain writes rather than a memory map, because a full disk is then an OSError and not a crash.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._shape, self._dtype, self._rows = shape, dtype, 0
        self._file: IO[bytes] = path.open("wb")
        self._header()
        self._start = self._file.tell()

    def _header(self) -> None:
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (self._rows, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, row: NDArray[Any]) -> None:
        """Write one row. Raises ValueError for another shape or type than the file's."""
        if row.shape != self._shape or row.dtype != self._dtype:
            raise ValueError(f"row must be {self._dtype} {self._shape}, got {row.dtype} {row.shape}")
        self._file.write(row.tobytes())
        self._rows += 1

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:
                self._file.seek(0)
                self._header()
                if self._file.tell() != self._start:
                    raise RuntimeError("the .npy header changed its length")
                self._file.flush()
                os.fsync(self._file.fileno())
