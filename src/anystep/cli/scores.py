"""Scores as a table for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

COLUMNS = {
    "frechet": "Frechet",
    "precision": "precision",
    "recall": "recall",
    "energy": "energy",
    "accuracy": "accuracy",
    "accuracy_real": "(real)",
}


def print_scores(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print one line a method and budget, and every note once; nothing without scores.

    Rows of several averages of one run say which, as ``weights``.
    """
    if not rows:
        return
    names = [name for name in COLUMNS if any(name in row for row in rows)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    said = ("method", "weights") if any("weights" in row for row in rows) else ("method",)
    for head in said:
        table.add_column(head, no_wrap=True)
    for head in ("steps", "guidance", *(COLUMNS[name] for name in names)):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        values = ["-" if row.get(name) is None else f"{row[name]:.3f}" for name in names]
        table.add_row(*(str(row[name]) for name in (*said, "steps")), _guidance(row["guidance"]), *values)
    console = Console()
    console.print(table)
    for note in dict.fromkeys(note for row in rows for note in row["notes"]):
        console.print(f"note: {note}")


def _guidance(value: float | str) -> str:
    """Return the scale; older scores have words."""
    return value.split(":")[0] if isinstance(value, str) else f"{value:g}"
