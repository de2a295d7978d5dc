"""Score records on disk, ``{"scores": [record, ...]}``, and which metrics they have."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anystep.core.files import write_text
from anystep.evaluation.metrics import METRICS

#: what two protocols of one run may differ in and still measure the same
IGNORED = ("code", "torch_version", "key_version")


def keep_scores(path: str | Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Add records to those of the file, which is written atomically; a new one replaces one that measures the same.

    The same: equal run and checkpoint, steps and protocol, up to the versions of the code and of torch. Raises OSError,
    and ValueError for a number that is not finite, or a file without scores; the file is then unchanged.
    """
    earlier = read_scores(Path(path)) if Path(path).exists() else []
    new = {_measurement(record) for record in records}
    scores = [*(record for record in earlier if _measurement(record) not in new), *records]
    write_text(Path(path), json.dumps({"scores": scores}, indent=2, allow_nan=False) + "\n")


def read_scores(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file. Raises OSError, and ValueError that names a file without scores."""
    try:
        records = json.loads(path.read_text(encoding="utf-8"))["scores"]
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise TypeError
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not hold scores") from error
    return records


def measured(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the metrics of score records: the registry's in its order, then others that the protocols name."""
    named = [name for record in records for name in (record.get("protocol") or {}).get("metrics", {})]
    return [name for name in dict.fromkeys([*METRICS, *named]) if any(name in record for record in records)]


def parts(records: Sequence[Mapping[str, Any]], metric: str) -> dict[str, str]:
    """Return a metric's further keys in score records, `accuracy_real` and `frechet_floor`: suffix -> key."""
    names = measured(records)
    keys = dict.fromkeys(key for record in records for key in record if key.startswith(f"{metric}_"))
    longer = tuple(f"{name}_" for name in names if name.startswith(f"{metric}_"))
    return {key.removeprefix(f"{metric}_"): key for key in keys if key not in names and not key.startswith(longer)}


def _measurement(record: Mapping[str, Any]) -> str:
    """Return what a record measures, as text that is equal for equal measurements."""
    protocol = {name: value for name, value in (record.get("protocol") or {}).items() if name not in IGNORED}
    # Protocols of 0.1.0 have no space (it was `data`), and omit metrics without parameters.
    data = {"space": "data"}.items()
    metrics = {name: dict(given.items() - data) for name, given in protocol.get("metrics", {}).items()}
    protocol["metrics"] = {name: given for name, given in metrics.items() if given}
    return json.dumps([record.get("run"), record.get("steps"), protocol], sort_keys=True)
