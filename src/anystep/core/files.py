"""Files that are written atomically."""

import os
from pathlib import Path


def write_bytes(path: Path, content: bytes) -> None:
    """Write a small file to a temporary name, flush it to disk, and rename it. Creates its folder. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    try:
        partial.write_bytes(content)
        sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, as `write_bytes` does; the undecoded bytes of a file name in it stay as they are."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def sync(path: Path) -> None:
    """Flush a file or a directory entry to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
