"""Score records on disk, ``{"scores": [record, ...]}``, and which metrics they hold."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anystep.core.files import write_text
from anystep.evaluation.metrics import METRICS

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


def measured(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the metrics of score records: the registry's in its order, then others that the protocols name."""
    named = [name for row in rows for name in (row.get("protocol") or {}).get("metrics", {})]
    return [name for name in dict.fromkeys([*METRICS, *named]) if any(name in row for row in rows)]


def parts(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, str]:
    """Return what stands beside a metric in score records, `accuracy_real` and `frechet_floor`: suffix -> key."""
    names = measured(rows)
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith(f"{metric}_") and key not in names)
    longer = tuple(f"{name}_" for name in names if name.startswith(f"{metric}_"))
    return {key.removeprefix(f"{metric}_"): key for key in keys if not key.startswith(longer)}


def _question(row: Mapping[str, Any]) -> str:
    protocol = {name: value for name, value in (row.get("protocol") or {}).items() if name not in WHO_ASKED}
    # Protocols of 0.1.0 have no space, and nothing of a metric without parameters: all spaces were `data`.
    data = {"space": "data"}.items()
    metrics = {name: dict(given.items() - data) for name, given in protocol.get("metrics", {}).items()}
    protocol["metrics"] = {name: given for name, given in metrics.items() if given}
    return json.dumps([row.get("run"), row.get("steps"), protocol], sort_keys=True)
