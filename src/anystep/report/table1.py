"""Table 1 of Frans et al. 2024 as text: methods in their groups, budgets, and what each run cost."""

from collections.abc import Mapping, Sequence
from math import floor, log10
from typing import Any

from anystep.figures.methods import grouped, words
from anystep.report.rows import LOWER, direction, metric_title

Row = Mapping[str, Any]

#: columns of Table 1 of Frans et al. 2024, kept when there is no room for every budget
PAPER = (128, 4, 1)


def table_text(summary: Sequence[Row], metric: str, failures: Sequence[Row] = (), width: int = 100) -> str:
    """Return the table of one metric: a line a method, a column a budget, and the network forward
    units of training.

    ``summary`` and ``failures`` are those of a comparison (`anystep.comparison`). Budgets that do not fit into
    ``width`` characters are left out, 128, 4 and 1 last. Raises ValueError without rows.
    """
    if not summary:
        raise ValueError("nothing to tabulate: no method was compared")
    cells = _cells(summary, metric, failures)
    groups = grouped(row["method"] for row in summary)
    units = {row["method"]: f"{row['forward_units']:,}" for row in summary}
    names = [f"  {words(name)}" for names in groups.values() for name in names]
    budgets = sorted({row["steps"] for row in summary}, reverse=True)
    room = width - max(map(len, names)) - max(len("forward units"), *map(len, units.values())) - 2
    columns = _that_fit(budgets, {n: max(len(c) for (_, m), c in cells.items() if m == n) for n in budgets}, room)
    lines = [["", *(f"{n} step{'s' if n > 1 else ''}" for n in columns), "forward units"]]
    for part, methods in groups.items():
        lines.append([part])
        lines += [[f"  {words(name)}", *(cells[name, n] for n in columns), units[name]] for name in methods]
    widths = [max(len(line[n]) for line in lines if len(line) > n) for n in range(len(lines[0]))]
    text = [_line(line, widths) for line in lines]
    notes = _notes(summary, failures, "\n".join(text), columns, budgets)
    if (floor := _floor(summary, metric)) is not None:
        notes = [*(notes or [""]), floor]
    heading = ", ".join(filter(None, [metric_title(metric), direction(metric)]))
    return "\n".join([heading, "", text[0], "-" * max(map(len, text)), *text[1:], *notes])


def _floor(summary: Sequence[Row], metric: str) -> str | None:
    """Return the line of a distance's floor, where it is known."""
    floor = next((row["floor"][metric] for row in summary if metric in row.get("floor", {})), None)
    if floor is None:
        return None
    return f"floor {floor:.3g}: as many examples drawn from the reference; scores at or below it are equally good"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return a line of the table: the first cell to the left, the others to the right."""
    values = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=False))
    return "  ".join([cells[0].ljust(widths[0]), *values]).rstrip()


def _cells(summary: Sequence[Row], metric: str, failures: Sequence[Row]) -> dict[tuple[str, int], str]:
    """Return each cell: mean ± spread, in parentheses where the budget has a caution, the best one marked."""
    values = {(row["method"], row["steps"]): row["mean"].get(metric) for row in summary}
    known = [value for value in values.values() if value is not None and value > 0]
    decimals = min(4, max(0, 2 - floor(log10(min(known))))) if known else 3
    fewest = min(row["steps"] for row in summary)
    plain = [values[row["method"], fewest] for row in summary if row["steps"] == fewest and row["caution"] is None]
    plain = [value for value in plain if value is not None]
    best = min(plain) if direction(metric) == LOWER and len(plain) > 1 else None
    cells = {}
    for row in summary:
        where = row["method"], row["steps"]
        value = values[where]
        failed = [f for f in failures if f["method"] == row["method"] and f["steps"] in {None, row["steps"]}]
        if value is None:
            cells[where] = "failed" if failed else "–"
            continue
        text = f"{value:,.{decimals}f}" if abs(value) < 1000 else f"{value:,.0f}"
        if len(row["seeds"]) > 1:
            text += f" ±{row['spread'][metric]:.{decimals}f}"
        if row["caution"] is not None:
            text = f"({text})"
        mark = "*" if row["steps"] == fewest and value == best else ""
        cells[where] = text + mark + ("†" if failed else "")
    return _aligned(cells)


def _aligned(cells: dict[tuple[str, int], str]) -> dict[tuple[str, int], str]:
    """Return the cells with room to their right where others of the column have a mark, so that digits are aligned."""
    marks = {where: len(cell) - len(cell.rstrip(")*†")) for where, cell in cells.items()}
    most = {steps: max(n for (_, s), n in marks.items() if s == steps) for _, steps in cells}
    return {where: cell + " " * (most[where[1]] - marks[where]) for where, cell in cells.items()}


def _that_fit(budgets: Sequence[int], widths: Mapping[int, int], room: int) -> list[int]:
    """Return the budgets whose columns fit into ``room`` characters, the paper's first, in the order of
    ``budgets``."""
    kept: list[int] = []
    for budget in sorted(budgets, key=lambda n: (n not in PAPER, budgets.index(n))):
        room -= max(widths[budget], len(f"{budget} steps")) + 2
        if room >= 0 or not kept:
            kept.append(budget)
    return sorted(kept, reverse=True)


def _notes(
    summary: Sequence[Row], failures: Sequence[Row], table: str, columns: Sequence[int], budgets: Sequence[int]
) -> list[str]:
    """Return the lines under the table that its marks need."""
    notes = []
    if "*" in table:
        notes.append(f"* the best in {min(budgets)} step{'s' if min(budgets) > 1 else ''}")
    if "±" in table:
        seeds = max((row["seeds"] for row in summary), key=len)
        notes.append(f"± largest minus smallest over seeds {', '.join(map(str, seeds))}")
    if "(" in table:
        notes.append("( ) conditions that the objective is not intended to support, as in Table 1 of Frans et al. 2024")
        told = {row["method"]: row["caution"] for row in summary if row["caution"] is not None}
        notes += [f"    {caution}" for caution in told.values()]
    if "†" in table:
        notes.append("† without the seeds that failed")
    if set(columns) < set(budgets):
        notes.append(f"no room for {', '.join(str(n) for n in budgets if n not in columns)} steps: see compare.json")
    for failure in failures:
        where = "" if failure["steps"] is None else f", {failure['steps']} steps"
        notes.append(f"failed: {words(failure['method'])}, seed {failure['seed']}{where}: {failure['why']}")
    return ["", *notes] if notes else []
