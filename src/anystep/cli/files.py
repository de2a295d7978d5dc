"""Files that the subcommands write. Each appears whole or not at all; raises OSError."""

import json
import os
from pathlib import Path
from typing import Any

from PIL import Image

from anystep.core.errors import RunError
from anystep.core.files import write_bytes, write_text
from anystep.figures.canvas import png


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON; creates the folder."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_png(path: Path, image: Image.Image) -> None:
    """Write an image; creates the folder."""
    write_bytes(path, png(image))


def check_writable(*paths: Path | None) -> None:
    """Raise RunError, before any work, for a file that cannot be written. Creates nothing; None is ignored."""
    for path in filter(None, paths):
        if path.is_dir():
            raise RunError(f"cannot write {path}: Is a directory")
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not folder.is_dir():
            raise RunError(f"cannot write {path}: {folder} is not a directory")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise RunError(f"cannot write {path}: no permission to write in {folder}")
