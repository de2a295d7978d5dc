"""Tables of scores with their protocols, for the page."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from anystep.evaluation.protocol import summarise
from anystep.evaluation.scores import measured, parts
from anystep.report.series import (
    AT_FLOOR,
    WHY_AT_FLOOR,
    ScoreRecord,
    ScoreSeries,
    better,
    by_run,
    by_series,
    common_floor,
    floor_mark,
    metric_title,
)

#: of what `parts` finds, what a table has a row for
FLOOR_PARTS = ("floor", "floor_deviation")
#: fields that differ between the records of a table
BY_RECORD = ("steps", "schedule", "guidance", "ema")


def number(value: Any) -> str:
    """Return a number with three decimals, or four digits where that is too few; "–" for None, other values as text."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if 0.001 <= abs(value) < 1000 or value == 0 else f"{value:.4g}"


def fact(value: Any) -> str:
    """Return the value of an option or a protocol's field, as HTML if it needs markup."""
    if value is None or value in ([], ()):
        return Markup("<span class=quiet>none</span>")
    if isinstance(value, Mapping):
        inner = [(name, "({})" if isinstance(item, Mapping) else "{}", fact(item)) for name, item in value.items()]
        return Markup("; ").join(Markup(f"{{}} {form}").format(name, text) for name, form, text in inner)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, str) and len(value) >= 40 and value.isalnum():  # a hash
        return Markup("<code>{}</code>").format(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


TEMPLATES = Environment(loader=PackageLoader("anystep.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
TEMPLATES.filters["fact"] = fact


def score_tables(scores: Sequence[ScoreRecord]) -> str:
    """Return HTML: a table for the records of each protocol, with that protocol below it."""
    heading = "Run" if by_run(scores) else "Method"
    groups: dict[str, list[tuple[ScoreSeries, ScoreRecord]]] = {}
    for series, records in by_series(scores).items():
        for record in records:
            groups.setdefault(repr(sorted(_shared(record).items())), []).append((series, record))
    tables = [_score_table(records, heading) | _protocol(records[0][1]) for records in groups.values()]
    return TEMPLATES.get_template("scores.html").render(tables=tables)


def _score_table(records: Sequence[tuple[ScoreSeries, ScoreRecord]], heading: str) -> dict[str, Any]:
    """Return the headings, rows, legend and notes of the table of some records, in the order of their series."""
    rows = [record for _, record in records]
    metrics, best = measured(rows), _best(rows)
    columns = []  # heading, arrow, key in a record
    for metric in metrics:
        arrow = {"lower": "↓", "higher": "↑"}.get(better(metric), "")
        columns.append((metric_title(metric), arrow, metric))
        columns += [(part, "", key) for part, key in parts(rows, metric).items() if part not in FLOOR_PARTS]
    if any(record.get("seconds") is not None for record in rows):
        columns.append(("Seconds", "", "seconds"))
    several_emas = len({series.ema for series, _ in records}) > 1
    guided = any(series.guidance not in ("", "1") for series, _ in records)
    lines, before = [], ""
    for series, record in records:
        cells = [("n", series.ema)] if several_emas else []
        cells += [("n", number(record["steps"])), *([("n", series.guidance or "–")] if guided else [])]
        for *_, key in columns:
            is_best = best.get((record["steps"], key)) == record.get(key) is not None
            style = "n best" if is_best else "n" if key in metrics else "n quiet"
            text = number(record.get(key))
            if mark := floor_mark(record, key):
                text = Markup("{}<span class=mark>{}</span>").format(text, mark)
            cells.append((style, text))
        lines.append((series.name if series.name != before else "", cells))
        before = series.name
    floors = [common_floor(rows, key) for *_, key in columns]
    if any(floors):
        blank = [("n", "")] * (1 + several_emas + guided)
        lines.append(("Floor", blank + [("n quiet", number(floor.value) if floor else "") for floor in floors]))
    heads = [heading, *(["EMA"] if several_emas else []), "Steps", *(["Guidance"] if guided else [])]
    return {
        "headings": [*((head, "") for head in heads), *((head, arrow) for head, arrow, _ in columns)],
        "rows": lines,
        "records": records,
        "legend": _legend(records, metrics, bool(best)),
        "notes": list(
            dict.fromkeys(
                f"{series.name}, {record['steps']} steps: {note}"
                for series, record in records
                for note in record.get("notes", [])
            )
        ),
    }


def _legend(records: Sequence[tuple[ScoreSeries, ScoreRecord]], metrics: Sequence[str], shaded: bool) -> str:
    """Return the sentences below a table that explain shading, floors and accuracy."""
    legend = []
    if shaded:
        several = len({series[1:] for series, _ in records}) > 1
        legend.append(f"Shaded: the smaller distance at equal steps{', for any guidance and EMA' if several else ''}.")
    rows = [record for _, record in records]
    floors = {metric_title(name): common_floor(rows, name) for name in metrics}
    if listed := ", ".join(
        f"{name} {number(floor.value)}" + ("" if floor.deviation is None else f" ± {number(floor.deviation)}")
        for name, floor in floors.items()
        if floor is not None
    ):
        legend.append(
            f"Floor, as many examples drawn from the reference: {listed}; scores at or below it are equally good."
        )
    if any(floor_mark(record, name) for record in rows for name in metrics):
        legend.append(f"{AT_FLOOR} {WHY_AT_FLOOR}.")
    if "accuracy" in metrics:
        legend.append("Accuracy and precision do not measure variety, class means score 1.0: read them with recall.")
    return " ".join(legend)


def _best(rows: Sequence[ScoreRecord]) -> dict[tuple[int, str], float]:
    """Return the smallest value of each (steps, distance), where values differ. Only distances account for variety."""
    values: dict[tuple[int, str], set[float]] = {}
    for name in measured(rows):
        for row in rows:
            if better(name) == "lower" and row.get(name) is not None:
                values.setdefault((row["steps"], name), set()).add(row[name])
    return {key: min(found) for key, found in values.items() if len(found) > 1}


def _protocol(record: ScoreRecord) -> dict[str, Any]:
    """Return the protocol that the records of a table share: one line of summary, and all fields by name."""
    shared = _shared(record)
    summary = f"{summarise(shared)}, seed {shared['seed']}" if "features" in shared else "not recorded"
    return {"facts": shared, "summary": summary}


def _shared(record: ScoreRecord) -> dict[str, Any]:
    """Return the part of a record's protocol that all records of a table share."""
    return {name: value for name, value in (record.get("protocol") or {}).items() if name not in BY_RECORD}
