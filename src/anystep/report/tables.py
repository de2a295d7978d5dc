"""Tables of the page: scores with their protocol, configs, facts. All text is escaped here."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from anystep.evaluation.scores import measured, parts
from anystep.report.rows import LOWER, Who, by_run, common_floor, direction, grouped, metric_title

Row = Mapping[str, Any]
Groups = dict[Who, list[Row]]

#: what the protocol's fields are called on the page, in this order; others follow by their own name
PROTOCOL = {
    "num": "Samples",
    "labels": "Class labels",
    "reference": "Reference",
    "reference_num": "Reference examples",
    "reference_hash": "Reference fingerprint",
    "features": "Features",
    "resize": "Resize",
    "quantised": "Samples rounded to",
    "metrics": "Metric parameters",
    "seed": "Seed",
    "device": "Device",
    "precision": "Arithmetic",
    "torch_version": "torch",
    "code": "Code",
}
#: what differs from row to row and stands in the table itself or in the schedule list
BY_ROW = ("steps", "schedule", "guidance", "ema")


def score_tables(scores: Sequence[Row]) -> str:
    """Return a table for the rows of each protocol, with that protocol under it, number for number."""
    head = "Run" if by_run(scores) else "Method"
    tables: dict[str, Groups] = {}
    for who, rows in grouped(scores).items():
        for row in rows:
            protocol = repr(sorted(_shared(row).items(), key=str))
            tables.setdefault(protocol, {}).setdefault(who, []).append(row)
    return "\n".join(_score_table(groups, head) + _protocol(groups, head) for groups in tables.values())


def config_table(config: Row) -> str:
    """Return a table of a (nested) config, one section a group."""
    flat = {name: value for name, value in config.items() if not isinstance(value, Mapping)}
    sections = [("", flat)] if flat else []
    sections += [(name, dict(value)) for name, value in config.items() if isinstance(value, Mapping)]
    body = []
    for name, values in sections:
        rows = "".join(f"<tr><th>{escape(key)}</th><td>{_value(value)}</td></tr>" for key, value in values.items())
        head = f'<tr class="group"><th colspan="2">{escape(name)}</th></tr>' if name else ""
        body.append(f"<tbody>{head}{rows}</tbody>")
    return f'<table class="facts config">{"".join(body)}</table>'


def number(value: Any) -> str:
    """Return a number for people: three decimals, or four digits where these say too little; a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return escape(str(value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if 0.001 <= abs(value) < 1000 or value == 0 else f"{value:.4g}"


def _score_table(groups: Groups, who_head: str) -> str:
    rows = [row for part in groups.values() for row in part]
    metrics = measured(rows)
    best = _best(rows, metrics)
    averages = len({who.average for who in groups}) > 1
    heads = [who_head, *(["Average"] if averages else []), "Steps", "Guidance"]
    columns: list[tuple[str, bool]] = []  # key in a record, and whether it is a score or stands beside one
    for name in metrics:
        beside = {part: key for part, key in parts(rows, name).items() if part != "floor"}
        columns += [(name, True), *((key, False) for key in beside.values())]
        heads += [_heading(name), *map(escape, beside)]
    if any(row.get("seconds") is not None for row in rows):
        heads.append("Seconds")
    head = "".join(f"<th{' class=n' if n else ''}>{text}</th>" for n, text in enumerate(heads))
    body, before = [], ""
    for who, part in groups.items():
        for row in part:
            first, before = who.name != before, who.name
            cells = [f"<td>{escape(who.name) if first else ''}</td>"]
            if averages:
                cells.append(f"<td class=n>{escape(who.average)}</td>")
            cells.append(f"<td class=n>{number(row['steps'])}</td><td class=n>{escape(who.guidance) or '–'}</td>")
            for name, score in columns:
                mark = (" best" if (row["steps"], name, row.get(name)) in best else "") if score else " quiet"
                cells.append(f'<td class="n{mark}">{number(row.get(name))}</td>')
            if "Seconds" in heads:
                cells.append(f'<td class="n quiet">{number(row.get("seconds"))}</td>')
            body.append(f"<tr{' class=first' if first else ''}>{''.join(cells)}</tr>")
    whatever = ", whatever the guidance and the average" if len({who[1:] for who in groups}) > 1 else ""
    legend = f"Shaded: the smaller distance at equal steps{whatever}. " if best else ""
    legend += _floors(rows, metrics)
    if "accuracy" in metrics:
        legend += "Accuracy and precision say nothing of variety, class means score 1.0: read them beside recall."
    notes = list(
        dict.fromkeys(
            f"{who.name}, {row['steps']} steps: {note}"
            for who, part in groups.items()
            for row in part
            for note in row.get("notes", [])
        )
    )
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    table = f'<table class="scores"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    legend = f'<p class="legend">{legend}</p>' if legend else ""
    return f'<div class="wide">{table}</div>{legend}' + (f'<ul class="notes">{listed}</ul>' if notes else "")


def _protocol(groups: Groups, who_head: str) -> str:
    rows = [(who.name, row) for who, part in groups.items() for row in part]
    shared = _shared(rows[0][1])
    if not shared:
        return '<p class="quiet">These scores came without a protocol: compare them with nothing.</p>'
    names = [*(name for name in PROTOCOL if name in shared), *(name for name in shared if name not in PROTOCOL)]
    facts = "".join(
        f"<tr><th>{escape(PROTOCOL.get(name, name))}</th><td>{_value(shared[name])}</td></tr>" for name in names
    )
    listed = ""
    for name, row in rows:
        cells = "".join(f"<td>{_value(row['protocol'].get(fact))}</td>" for fact in ("schedule", "guidance", "ema"))
        listed += f"<tr><td>{escape(name)}</td><td class=n>{row['steps']}</td>{cells}</tr>"
    summary = (
        f"Protocol: {number(shared.get('num'))} samples against {number(shared.get('reference_num'))} of "
        f"{escape(str(shared.get('reference')))}, {escape(str(shared.get('features')).replace('_', ' '))}, "
        f"seed {escape(str(shared.get('seed')))}"
    )
    return (
        f'<details class="protocol"><summary>{summary}</summary>'
        f'<table class="facts">{facts}</table><table class="schedules"><thead><tr><th>{who_head}</th>'
        f"<th class=n>Steps</th><th>Schedule</th><th>Guidance in effect</th><th>EMA</th></tr></thead>"
        f"<tbody>{listed}</tbody></table></details>"
    )


def _shared(row: Row) -> dict[str, Any]:
    """Return the part of a row's protocol that rows of one table must have in common."""
    return {name: value for name, value in (row.get("protocol") or {}).items() if name not in BY_ROW}


def _floors(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """Return the floors of distances in a sentence, or nothing. Records under one protocol have equal ones."""
    known = {name: floor for name in metrics if (floor := common_floor(rows, name)) is not None}
    listed = ", ".join(f"{escape(metric_title(name))} {number(floor)}" for name, floor in known.items())
    if not listed:
        return ""
    return f"Floor, as many examples drawn from the reference: {listed}; scores at or below it are equally good. "


def _best(rows: Sequence[Row], metrics: Sequence[str]) -> set[tuple[int, str, float]]:
    """Return (steps, distance, value) where one method beats the others at equal steps.

    Distances only: precision and accuracy are highest where variety is lost.
    """
    found = set()
    for name in (name for name in metrics if direction(name) == LOWER):
        known: dict[int, list[float]] = {}
        for row in rows:
            if row.get(name) is not None:
                known.setdefault(row["steps"], []).append(row[name])
        found |= {(steps, name, min(values)) for steps, values in known.items() if len(set(values)) > 1}
    return found


def _heading(name: str) -> str:
    arrow = {"": "", LOWER: " <span class=quiet>↓</span>"}.get(direction(name), " <span class=quiet>↑</span>")
    return escape(metric_title(name)) + arrow


def _value(value: Any) -> str:
    """Return a fact's value; mappings become "name value" pairs, hashes and paths keep their letters."""
    if isinstance(value, Mapping):
        return "; ".join(
            f"{escape(str(name))} {_value(inner)}"
            if not isinstance(inner, Mapping)
            else f"{escape(str(name))} ({_value(inner)})"
            for name, inner in value.items()
        )
    if value is None:
        return "<span class=quiet>none</span>"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return escape(", ".join(str(item) for item in value)) or "<span class=quiet>none</span>"
    if isinstance(value, str) and len(value) >= 40 and value.isalnum():
        return f"<code>{escape(value)}</code>"
    return escape(f"{value:g}" if isinstance(value, float) else str(value))
