"""A folder of results on disk. Entries appear atomically."""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from anystep.core.errors import DataError, reason


def cache_folder() -> Path:
    """Return the folder of the environment's ANYSTEP_CACHE, by default ~/.cache/anystep; it may not exist."""
    return Path(os.environ.get("ANYSTEP_CACHE") or "~/.cache/anystep").expanduser()


def cached(key: Iterable[object], build: Callable[[Path], None]) -> Path:
    """Return the folder of the entry ``key``, a sequence of parts; if it does not exist, ``build(folder)`` fills it.

    The entry is in `cache_folder`. It is built in a temporary folder and renamed: a killed run leaves no partial entry,
    and if two processes build one, the first wins. Raises DataError if the cache cannot be written.
    """
    root = cache_folder()
    entry = root / hashlib.sha256(repr(list(key)).encode("utf-8", "surrogateescape")).hexdigest()
    if entry.is_dir():
        return entry
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(root)
        with TemporaryDirectory(prefix="building-", dir=root, ignore_cleanup_errors=True) as name:
            building = Path(name)
            build(building)
            building.chmod(0o755)  # a temporary folder's 0o700 would lock other users out of a shared cache
            try:
                building.rename(entry)
            except OSError:
                if not entry.is_dir():  # else another process was first, with the same content
                    raise
    except OSError as error:
        raise DataError(
            f"cannot write the cache {root} ({reason(error)})\nset ANYSTEP_CACHE to a writable folder with enough space"
        ) from error
    return entry


def _remove_abandoned(root: Path) -> None:
    """Remove what killed runs left: partial entries that nothing was written to for a day."""
    for folder in root.glob("building-*"):
        with suppress(OSError):  # another process may be removing it too
            if time.time() - max(item.stat().st_mtime for item in (folder, *folder.iterdir())) > 24 * 3600:
                shutil.rmtree(folder, ignore_errors=True)
