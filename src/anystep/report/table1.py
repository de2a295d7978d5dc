"""Scores of a comparison as text, as in Table 1 of Frans et al. 2024."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from anystep.figures.methods import by_group, display_name, steps_name
from anystep.report.series import AT_FLOOR, WHY_AT_FLOOR, Floor, better, metric_title

Row = Mapping[str, Any]

#: columns of Table 1 of Frans et al. 2024; they stay when not all columns fit
PAPER = (128, 4, 1)


def table_text(summary: Sequence[Row], metric: str, failures: Sequence[Row] = (), width: int = 100) -> str:
    """Return the table of a metric: a row per method, a column per number of steps, and the training cost.

    ``summary`` and ``failures`` are those of a `Comparison`. Columns that do not fit into ``width`` characters are
    omitted, 128, 4 and 1 steps last. Raises ValueError for an empty summary.
    """
    if not summary:
        raise ValueError("nothing to tabulate: no method was compared")
    floor = _floor(summary, metric)
    cells = _cells(summary, metric, failures, floor)
    units = {row["method"]: f"{row['forward_units']:,}" for row in summary}
    lengths = {n: max(len(text) for (_, m), text in cells.items() if m == n) for _, n in cells}
    heads = {n: max(lengths[n], len(steps_name(n))) for n in sorted(lengths, reverse=True)}
    first, last = 2 + max(len(display_name(m)) for m in units), max(len("forward passes"), *map(len, units.values()))
    room, columns = width - first - last - 2, list[int]()
    for n in sorted(heads, key=lambda n: n not in PAPER):  # stable: most steps first
        room -= heads[n] + 2
        if room >= 0 or not columns:
            columns.append(n)
    columns.sort(reverse=True)

    def line(name: str, values: Sequence[str]) -> str:
        padded = (value.rjust(size) for value, size in zip(values, [*(heads[n] for n in columns), last], strict=True))
        return "  ".join([name.ljust(first), *padded]).rstrip()

    lines = []
    for group, methods in by_group(units).items():
        lines.append(group)
        lines += [line(f"  {display_name(m)}", [*(cells[m, n] for n in columns), units[m]]) for m in methods]
    if floor is not None:
        lines.append(line("floor", [*(cells["", n] for n in columns), ""]))
    head = line("", [*map(steps_name, columns), "forward passes"])
    notes = _notes(summary, failures, "\n".join(lines), sorted(heads.keys() - columns, reverse=True))
    if floor is not None:
        why = "as many examples drawn from the reference; scores at or below it are equally good"
        value = f"{floor.value:,.0f}" if floor.value >= 100 else f"{floor.value:.3g}"
        notes.append(f"floor {value}: {why}")
        if floor.deviation is not None and AT_FLOOR in "\n".join(lines):
            notes.append(f"{AT_FLOOR} {WHY_AT_FLOOR}, {floor.deviation:.2g}")
    heading = metric_title(metric) + (f", {better(metric)} is better" if better(metric) else "")
    text = [heading, "", head, "-" * max(map(len, [head, *lines])), *lines]
    return "\n".join([*text, "", *notes] if notes else text)


def _floor(summary: Sequence[Row], metric: str) -> Floor | None:
    """Return the floor of a distance, None where the summary has none."""
    floors = [row["floor"][metric] for row in summary if metric in row.get("floor", {})]
    deviations = [row["floor_deviation"][metric] for row in summary if metric in row.get("floor_deviation", {})]
    return Floor(floors[0], deviations[0] if deviations else None) if floors else None


def _cells(
    summary: Sequence[Row], metric: str, failures: Sequence[Row], floor: Floor | None
) -> dict[tuple[str, int], str]:
    """Return the cell of each (method, steps): mean ± spread and marks; digits of a column are aligned.

    Those of the floor have the method "".
    """
    values = {(row["method"], row["steps"]): row["mean"].get(metric) for row in summary}
    positive = [value for value in values.values() if value is not None and value > 0]
    decimals = min(4, max(0, 2 - math.floor(math.log10(min(positive))))) if positive else 3
    fewest = min(row["steps"] for row in summary)
    intended = [values[row["method"], fewest] for row in summary if row["steps"] == fewest and row["caution"] is None]
    scored = [value for value in intended if value is not None]
    best = min(scored) if better(metric) == "lower" and len(scored) > 1 else None
    bodies, marks = dict[tuple[str, int], str](), dict[tuple[str, int], str]()
    for row in summary:
        key = row["method"], row["steps"]
        value, cautioned = values[key], row["caution"] is not None
        failed = any(f["method"] == row["method"] and f["steps"] in {None, row["steps"]} for f in failures)
        if value is None:
            bodies[key], marks[key] = "failed" if failed else "–", ""
            continue
        spread = f" ±{row['spread'][metric]:.{decimals}f}" if len(row["seeds"]) > 1 else ""
        bodies[key] = f"{'(' * cautioned}{value:,.{decimals if abs(value) < 1000 else 0}f}{spread}"
        marks[key] = ")" * cautioned + "*" * (row["steps"] == fewest and value == best) + "†" * failed
        if floor is not None:
            marks[key] += floor.mark(value)
            bodies["", row["steps"]], marks["", row["steps"]] = f"{floor.value:,.{decimals}f}", ""
    room = {n: max(len(mark) for (_, m), mark in marks.items() if m == n) for _, n in marks}
    return {key: body + marks[key].ljust(room[key[1]]) for key, body in bodies.items()}


def _notes(summary: Sequence[Row], failures: Sequence[Row], table: str, omitted: Sequence[int]) -> list[str]:
    """Return the lines under the table that explain its marks, and the failures."""
    notes = []
    if "*" in table:
        notes.append(f"* the best in {steps_name(min(row['steps'] for row in summary))}")
    if "±" in table:
        seeds = max((row["seeds"] for row in summary), key=len)
        notes.append(f"± largest minus smallest over seeds {', '.join(map(str, seeds))}")
    if "(" in table:
        notes.append("( ) conditions that the objective is not intended to support, as in Table 1 of Frans et al. 2024")
        cautions = {row["method"]: row["caution"] for row in summary if row["caution"] is not None}
        notes += [f"    {caution}" for caution in cautions.values()]
    if "†" in table:
        notes.append("† without the seeds that failed")
    if omitted:
        notes.append(f"no room for {', '.join(map(str, omitted))} steps: see compare.json")
    for failure in failures:
        steps = "" if failure["steps"] is None else f", {steps_name(failure['steps'])}"
        notes.append(f"failed: {display_name(failure['method'])}, seed {failure['seed']}{steps}: {failure['why']}")
    return notes
