"""Tables for a terminal."""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from anystep.evaluation.scores import measured, parts
from anystep.figures.methods import display_name
from anystep.report.series import by_run, by_series
from anystep.report.tables import number


def print_table(
    columns: Mapping[str, Iterable[str]],
    numbers: Container[str] = (),
    padding: int = 1,
    whole: Container[str] = (),
) -> None:
    """Print columns by their heads; those in ``numbers`` are aligned right.

    The others may take several lines, unless they are in ``whole``.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, padding))
    for head in columns:
        right = head in numbers
        no_wrap = right or head in whole
        table.add_column(head, justify="right" if right else "left", no_wrap=no_wrap, overflow="fold")
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    Console(markup=False, emoji=False, highlight=False).print(table)


def print_scores(records: Sequence[Mapping[str, Any]]) -> None:
    """Print a row per method, EMA, guidance and number of steps, then each note once; nothing without scores.

    A column of one value is printed above the table instead. Where a method has several runs, all are named by their
    directories.
    """
    if not records:
        return
    series = [(who, record) for who, group in by_series(records).items() for record in group]
    columns = {"run": [who.name for who, _ in series]} if by_run(records) else {}
    if not columns or len({record["method"] for record in records}) == 1:
        columns["method"] = [display_name(str(record["method"])) for _, record in series]
    columns["EMA"] = [who.ema for who, _ in series]
    columns["steps"] = [str(record["steps"]) for _, record in series]
    columns["guidance"] = [who.guidance for who, _ in series]
    above = {"method": "{}", "EMA": "EMA {}", "guidance": "guidance {}"}
    for metric in measured(records):
        columns[metric] = [number(record.get(metric)) for _, record in series]
        for part, key in parts(records, metric).items():  # the floor of a distance, the accuracy of real data
            head = f"{metric} ({part})"
            columns[head], above[head] = [number(record.get(key)) for _, record in series], f"{head} {{}}"
    common = {head: columns.pop(head)[0] for head in above if head in columns and len(set(columns[head])) == 1}
    if any(common.values()):
        print(", ".join(above[head].format(value) for head, value in common.items() if value))
    print_table(columns, numbers=columns.keys() - {"run", "method", "EMA"}, padding=0)
    for note in dict.fromkeys(note for record in records for note in record["notes"]):
        print(f"note: {note}")
