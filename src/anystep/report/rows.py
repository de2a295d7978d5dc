"""What tells rows of scores apart: a method or a run, a guidance scale, an average of the weights."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from anystep.evaluation.metrics import known_metric
from anystep.figures.methods import words

LOWER, HIGHER = "lower is better", "higher is better"

Row = Mapping[str, Any]

#: what follows the directory's name in the name of a run
CHECKPOINT = re.compile(r", step \d+(, phase .*)?$")


def metric_title(name: str) -> str:
    """Return what a metric is called, with its feature space where it is not the data's own; else its name."""
    metric = known_metric(name)
    if metric is None:
        return name
    space = name.partition("@")[2] or metric.space
    return metric.title if space == "data" else f"{metric.title} ({space})"


def direction(name: str) -> str:
    """Return which values of a metric are better, in words; nothing for one that the registry does not hold."""
    metric = known_metric(name)
    return "" if metric is None else LOWER if metric.better == "lower" else HIGHER


def common_floor(rows: Sequence[Row], name: str) -> float | None:
    """Return the floor of a distance, where all records that have one agree."""
    floors = {row[f"{name}_floor"] for row in rows if row.get(f"{name}_floor") is not None}
    return floors.pop() if len(floors) == 1 else None


class Who(NamedTuple):
    """Whose scores rows are, as people read it: their name, guidance scale and average ("0.995", "power 0.1", "raw").

    An empty text stands for what the rows do not say.
    """

    name: str
    guidance: str
    average: str


def grouped(rows: Sequence[Row]) -> dict[Who, list[Row]]:
    """Return the rows of each line of a figure or block of a table, fewest steps first."""
    groups: dict[Who, list[Row]] = {}
    for row, name in zip(rows, _names(rows), strict=True):
        groups.setdefault(Who(name, _guidance(row.get("guidance")), _average(row)), []).append(row)
    return {who: sorted(part, key=lambda row: row["steps"]) for who, part in groups.items()}


def labels(groups: Sequence[Who]) -> dict[Who, str]:
    """Return what to call each: its name, with the guidance and the average where that name has several."""
    found = {}
    for who in groups:
        alike = [other for other in groups if other.name == who.name]
        scale = f", guidance {who.guidance}" if len({other.guidance for other in alike}) > 1 else ""
        average = f", average {who.average}" if len({other.average for other in alike}) > 1 else ""
        found[who] = who.name + scale + average
    return found


def by_run(rows: Sequence[Row]) -> bool:
    """Tell whether rows go by their run's name: some method has several runs."""
    return len({(row["method"], row.get("run")) for row in rows}) > len({row["method"] for row in rows})


def of_run(name: str, rows: Sequence[Row]) -> list[Row]:
    """Return the rows of a run directory under this name, whatever it was called when they were made."""
    return [{**row, "run": name + _checkpoint(row)} for row in rows]


def _names(rows: Sequence[Row]) -> list[str]:
    """Return what each row goes by: its method, or its run's directory, with the checkpoint where that has several."""
    if not by_run(rows):
        return [words(str(row["method"])) for row in rows]
    directories = [str(row.get("run")).removesuffix(_checkpoint(row)) for row in rows]
    checkpoints: dict[str, set[str]] = {}
    for row, directory in zip(rows, directories, strict=True):
        checkpoints.setdefault(directory, set()).add(_checkpoint(row))
    return [
        directory + (_checkpoint(row) if len(checkpoints[directory]) > 1 else "")
        for row, directory in zip(rows, directories, strict=True)
    ]


def _checkpoint(row: Row) -> str:
    found = CHECKPOINT.search(str(row.get("run")))
    return found[0] if found else ""


def _guidance(value: float | str | None) -> str:
    """Return the scale; older scores have words."""
    if isinstance(value, str):
        return value.split(":")[0]
    return "" if value is None else f"{value:g}"


def _average(row: Row) -> str:
    """Return the average that the protocol names; it says "none" of the trained parameters."""
    kept = str((row.get("protocol") or {}).get("ema", ""))
    return "raw" if kept == "none" else kept
