"""Tables for a terminal."""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from anystep.evaluation.scores import measured, parts
from anystep.figures.methods import display_name
from anystep.report.series import AT_FLOOR, WHY_AT_FLOOR, by_run, by_series, common_floor, floor_mark
from anystep.report.tables import number


def print_table(
    columns: Mapping[str, Iterable[str]],
    numbers: Container[str] = (),
    padding: int = 1,
    whole: Container[str] = (),
) -> None:
    """Print columns by their heads; those in ``numbers`` are aligned right, and no number is broken.

    Everything else may take several lines, unless its column is in ``whole``.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, padding))
    listed = {head: list(cells) for head, cells in columns.items()}
    for head, cells in listed.items():
        right = head in numbers
        widest = max(map(len, cells), default=0) if right else None
        justify: Literal["left", "right"] = "right" if right else "left"
        table.add_column(head, justify=justify, min_width=widest, no_wrap=head in whole, overflow="fold")
    for row in zip(*listed.values(), strict=True):
        table.add_row(*row)
    Console(markup=False, emoji=False, highlight=False).print(table)


def print_scores(records: Sequence[Mapping[str, Any]]) -> None:
    """Print a row per method, EMA, guidance and number of steps, then each note once; nothing without scores.

    A column of one value is printed above the table instead. Where a method has several runs, all are named by their
    directories. The last row has the floors of distances, where all records agree on one.
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
    floors = {metric: floor for metric in measured(records) if (floor := common_floor(records, metric)) is not None}
    marked = {metric for metric in measured(records) if any(floor_mark(record, metric) for record in records)}
    for metric in measured(records):
        columns[metric] = [number(record.get(metric)) for _, record in series]
        if metric in marked:
            columns[" " * len(columns)] = [floor_mark(record, metric) for _, record in series]  # no head
        for part, key in parts(records, metric).items():  # the accuracy of real data, floors that differ
            if part == "floor_deviation" or (part == "floor" and metric in floors):
                continue
            head = f"{metric} ({part})"
            columns[head], above[head] = [number(record.get(key)) for _, record in series], f"{head} {{}}"
    common = {head: columns.pop(head)[0] for head in above if head in columns and len(set(columns[head])) == 1}
    if any(common.values()):
        print(", ".join(above[head].format(value) for head, value in common.items() if value))
    if floors:
        first = next(iter(columns))
        for head, cells in columns.items():
            cells.append("floor" if head == first else number(floors[head].value) if head in floors else "")
    print_table(columns, numbers=columns.keys() - {"run", "method", "EMA"}, padding=0)
    if floors:
        deviations = [f"{name} {floor.deviation:.2g}" for name, floor in floors.items() if floor.deviation is not None]
        deviation = f"; its deviation: {', '.join(deviations)}" if deviations else ""
        print(f"floor: as many examples drawn from the reference{deviation}")
    if marked:
        print(f"{AT_FLOOR} {WHY_AT_FLOOR}")
    for note in dict.fromkeys(note for record in records for note in record["notes"]):
        print(f"note: {note}")
