"""Rows of scores on disk: ``{"scores": [row, ...]}``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anystep.core.files import write_text

#: what two protocols may differ in and still be the same question
WHO_ASKED = ("code", "torch_version")


def write_scores(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``{"scores": rows}``: the whole file appears at once or not at all. Makes the folder if it is not there.

    Raises OSError, and ValueError for numbers that are not finite.
    """
    write_text(Path(path), json.dumps({"scores": list(rows)}, indent=2, allow_nan=False) + "\n")


def keep_scores(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows to those of the file, if there is one; a new row takes the place of one that answers the same question.

    The same question: equal run and checkpoint, steps and protocol, the versions of the code and of torch apart.
    Raises OSError, and ValueError for a file of another kind, which is left as it is.
    """
    there = read_scores(Path(path)) if Path(path).exists() else []
    answered = {_question(row) for row in rows}
    write_scores(path, [*(row for row in there if _question(row) not in answered), *rows])


def read_scores(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file. Raises OSError, and ValueError that names a file of another kind."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["scores"]
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise TypeError
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not hold scores") from error
    return rows


def _question(row: Mapping[str, Any]) -> str:
    protocol = {name: value for name, value in (row.get("protocol") or {}).items() if name not in WHO_ASKED}
    return json.dumps([row.get("run"), row.get("steps"), protocol], sort_keys=True)
