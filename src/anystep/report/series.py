"""Score records grouped into series, one per line of a figure: a method or run, a guidance scale, an EMA."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from anystep.evaluation.metrics import METRICS
from anystep.figures.methods import display_name

ScoreRecord = Mapping[str, Any]

#: after a score that is at the floor, in tables, and what it means
AT_FLOOR = "~"
WHY_AT_FLOOR = "at the floor: above it by at most its deviation"

#: what follows the directory in a record's "run"
CHECKPOINT = re.compile(r", step \d+(, phase .*)?$")


def metric_title(name: str) -> str:
    """Return a metric's title, with its feature space unless that is the data itself; an unknown metric's name."""
    base, _, space = name.partition("@")
    if base not in METRICS:
        return name
    metric = METRICS[base]
    space = space or metric.space
    return metric.title if space == "data" else f"{metric.title} ({space})"


def better(name: str) -> str:
    """Return which values of a metric are better, "lower" or "higher"; "" for an unknown metric."""
    metric = METRICS.get(name.partition("@")[0])
    return "" if metric is None else metric.better


class Floor(NamedTuple):
    """What a perfect sampler scores in a distance: as many examples drawn from the reference."""

    value: float
    deviation: float | None
    """Standard deviation over several draws; None in scores of earlier versions."""

    def mark(self, score: float | None) -> str:
        """Return `AT_FLOOR` for a score at most the deviation above the floor, else ""."""
        if score is None or self.deviation is None or score > self.value + self.deviation:
            return ""
        return AT_FLOOR


def common_floor(records: Sequence[ScoreRecord], name: str) -> Floor | None:
    """Return the floor of a distance, or None unless all records that have one agree."""
    floors = {record[f"{name}_floor"] for record in records if record.get(f"{name}_floor") is not None}
    deviations = [record[f"{name}_floor_deviation"] for record in records if f"{name}_floor_deviation" in record]
    return Floor(floors.pop(), max(deviations, default=None)) if len(floors) == 1 else None


def floor_mark(record: ScoreRecord, name: str) -> str:
    """Return `AT_FLOOR` if a record's score is at its floor, else ""."""
    floor = common_floor([record], name)
    return "" if floor is None else floor.mark(record.get(name))


class ScoreSeries(NamedTuple):
    """What the records of a series have in common, as text; "" if the records do not have it."""

    name: str
    """Display name of the method, or the run's directory."""
    guidance: str
    """Guidance scale W."""
    ema: str
    """EMA of the weights: "0.995", "power 0.1"; "raw" are the trained weights."""


def by_series(records: Sequence[ScoreRecord]) -> dict[ScoreSeries, list[ScoreRecord]]:
    """Return the records of each series, fewest steps first."""
    directories = [str(record.get("run")).removesuffix(_checkpoint(record)) for record in records]
    checkpoints: dict[str, set[str]] = {}
    for record, directory in zip(records, directories, strict=True):
        checkpoints.setdefault(directory, set()).add(_checkpoint(record))
    runs, series = by_run(records), dict[ScoreSeries, list[ScoreRecord]]()
    for record, directory in zip(records, directories, strict=True):
        name = display_name(str(record["method"]))
        if runs:
            name = directory + (_checkpoint(record) if len(checkpoints[directory]) > 1 else "")
        scale, ema = record.get("guidance"), str((record.get("protocol") or {}).get("ema", "")).replace("none", "raw")
        guidance = "" if scale is None else f"{scale:g}"
        series.setdefault(ScoreSeries(name, guidance, ema), []).append(record)
    return {key: sorted(group, key=lambda record: record["steps"]) for key, group in series.items()}


def series_labels(series: Sequence[ScoreSeries]) -> dict[ScoreSeries, str]:
    """Return each series' label: its name, with the guidance scale and the EMA if series of that name differ in it."""
    labels = {}
    for one in series:
        same_name = [other for other in series if other.name == one.name]
        guidance = f", guidance {one.guidance}" if len({other.guidance for other in same_name}) > 1 else ""
        ema = f", EMA {one.ema}" if len({other.ema for other in same_name}) > 1 else ""
        labels[one] = one.name + guidance + ema
    return labels


def by_run(records: Sequence[ScoreRecord]) -> bool:
    """Return whether series are named by run: some method has several runs."""
    return len({(record["method"], record.get("run")) for record in records}) > len({r["method"] for r in records})


def of_run(name: str, records: Sequence[ScoreRecord]) -> list[ScoreRecord]:
    """Return the records of a run directory with its present name, as it may have been moved since."""
    return [{**record, "run": name + _checkpoint(record)} for record in records]


def _checkpoint(record: ScoreRecord) -> str:
    found = CHECKPOINT.search(str(record.get("run")))
    return found[0] if found else ""
