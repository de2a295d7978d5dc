"""What a verb writes beside its results."""

import json
from pathlib import Path
from typing import Any

from anystep.training import checkpoint
from anystep.training.errors import RunError


def write_json(path: Path, value: Any) -> None:
    """Write one JSON file, whole or not at all, and its folder where there is none. Raises RunError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write_text(path, json.dumps(value, indent=2) + "\n")
    except OSError as error:
        raise RunError(f"cannot write {path}: {checkpoint.reason(error)}") from error
