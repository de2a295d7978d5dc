"""Scores as a table for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from anystep.figures.methods import words
from anystep.report.rows import by_run, grouped

METRICS = {
    "frechet": "Frechet",
    "precision": "precision",
    "recall": "recall",
    "energy": "energy",
    "accuracy": "accuracy",
    "accuracy_real": "(real)",
}
#: columns of words, which may take several lines
WORDS = ("method", "run", "average")
#: what is said once, above the table, when all lines have it in common, and how
SHARED = {"method": "{}", "average": "average {}", "guidance": "guidance {}", "(real)": "accuracy (real) {}"}


def print_scores(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a line a method, average, guidance and budget, and every note once; nothing without scores.

    What all lines have in common is said above the table. Where a method has several runs, all go by their directories'
    names.
    """
    if not rows:
        return
    columns = _columns(rows)
    shared = {head: values[0] for head, values in columns.items() if head in SHARED and len(set(values)) == 1}
    told = {head: values for head, values in columns.items() if head not in shared}
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    for head in told:
        text = head in WORDS
        table.add_column(head, justify="left" if text else "right", no_wrap=not text, overflow="fold")
    for line in zip(*told.values(), strict=True):
        table.add_row(*line)
    console = Console(markup=False, emoji=False, highlight=False)
    if said := [SHARED[head].format(value) for head, value in shared.items() if value not in ("", "-")]:
        console.print(", ".join(said))
    console.print(table)
    for note in dict.fromkeys(note for row in rows for note in row["notes"]):
        console.print(f"note: {note}")


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the table's columns by their heads."""
    lines = [(who, row) for who, part in grouped(rows).items() for row in part]
    columns = {"run": [who.name for who, _ in lines]} if by_run(rows) else {}
    if not columns or len({row["method"] for row in rows}) == 1:
        columns["method"] = [words(str(row["method"])) for _, row in lines]
    columns |= {
        "average": [who.average for who, _ in lines],
        "steps": [str(row["steps"]) for _, row in lines],
        "guidance": [who.guidance for who, _ in lines],
    }
    for name, head in METRICS.items():
        if any(name in row for row in rows):
            columns[head] = ["-" if row.get(name) is None else f"{row[name]:.3f}" for _, row in lines]
    return columns
