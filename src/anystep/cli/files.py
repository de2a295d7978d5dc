"""What a verb writes beside its results."""

import io
import json
import os
from pathlib import Path
from typing import Any

from PIL import Image

from anystep.core.errors import RunError, reason
from anystep.core.files import write_bytes, write_text


def write_json(path: Path, value: Any) -> None:
    """Write one JSON file, whole or not at all, and its folder where there is none. Raises RunError."""
    try:
        write_text(path, format_json(value) + "\n")
    except OSError as error:
        raise RunError(f"cannot write {path}: {reason(error)}") from error


def format_json(value: Any) -> str:
    """Return JSON as our files have it, indented."""
    return json.dumps(value, indent=2)


def write_picture(path: Path, image: Image.Image) -> None:
    """Write a PNG whole or not at all. Raises OSError."""
    content = io.BytesIO()
    image.save(content, format="PNG")
    write_bytes(path, content.getvalue())


def check_writable(path: Path) -> None:
    """Raise RunError, before any work, when a file could not be written there. Makes nothing."""
    if path.is_dir():
        raise RunError(f"cannot write {path}: Is a directory")
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise RunError(f"cannot write {path}: {folder} is not a directory")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RunError(f"cannot write {path}: no permission to write in {folder}")
