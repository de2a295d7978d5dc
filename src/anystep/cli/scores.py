"""Scores as a table for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from anystep.evaluation.features import FEATURES
from anystep.evaluation.metrics import METRICS
from anystep.evaluation.scores import measured, parts
from anystep.figures.methods import display_name
from anystep.report.series import by_run, by_series
from anystep.report.tables import number

METRICS_HELP = (
    f"Among {', '.join(METRICS)}, by spaces or commas; METRIC@SPACE in another feature space "
    f"({', '.join(FEATURES)}). Default those of the kind of data."
)
#: columns of words, which may take several lines
WORDS = ("method", "run", "average")
#: what is said once, above the table, when all lines have it in common, and how
SHARED = {"method": "{}", "average": "average {}", "guidance": "guidance {}"}


def print_scores(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a line a method, average, guidance and budget, and every note once; nothing without scores.

    What all lines have in common is said above the table. Where a method has several runs, all go by their directories'
    names.
    """
    if not rows:
        return
    columns, beside = _columns(rows)
    may_be_shared = SHARED | {head: f"{head} {{}}" for head in beside}
    shared = {head: values[0] for head, values in columns.items() if head in may_be_shared and len(set(values)) == 1}
    told = {head: values for head, values in columns.items() if head not in shared}
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    for head in told:
        text = head in WORDS
        table.add_column(head, justify="left" if text else "right", no_wrap=not text, overflow="fold")
    for line in zip(*told.values(), strict=True):
        table.add_row(*line)
    console = Console(markup=False, emoji=False, highlight=False)
    if said := [may_be_shared[head].format(value) for head, value in shared.items() if value not in ("", "-")]:
        console.print(", ".join(said))
    console.print(table)
    for note in dict.fromkeys(note for row in rows for note in row["notes"]):
        console.print(f"note: {note}")


def _columns(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[str]], set[str]]:
    """Return the table's columns by their heads, and which stand beside a metric: its floor, accuracy on real data."""
    lines = [(who, row) for who, part in by_series(rows).items() for row in part]
    columns = {"run": [who.name for who, _ in lines]} if by_run(rows) else {}
    if not columns or len({row["method"] for row in rows}) == 1:
        columns["method"] = [display_name(str(row["method"])) for _, row in lines]
    columns |= {
        "average": [who.ema for who, _ in lines],
        "steps": [str(row["steps"]) for _, row in lines],
        "guidance": [who.guidance for who, _ in lines],
    }
    beside = set[str]()
    for name in measured(rows):
        keys = {name: name} | {f"{name} ({part})": key for part, key in parts(rows, name).items()}
        beside |= keys.keys() - {name}
        for head, key in keys.items():
            columns[head] = ["-" if row.get(key) is None else number(row[key]) for _, row in lines]
    return columns, beside
