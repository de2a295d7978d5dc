"""Curves of a run: its losses and gradients over images seen, and its scores over sampling steps."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from anystep.evaluation.scores import measured
from anystep.figures.canvas import INK, LADDER_MAP, MUTED, SERIES, legend, panels, title
from anystep.report.rows import LOWER, common_floor, direction, grouped, labels, metric_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]

#: of lines, when there are more than colours
STYLES = ("-", "--", ":", "-.")
#: inches that a letter of a legend and the line before it may take
LETTER, HANDLE, LINE = 0.075, 0.5, 0.19
#: a kind of row that is a step of the ladder: 1, 1/64
STEP = re.compile(r"\d+(/\d+)?")


def loss_figure(log: Sequence[Record]) -> "Figure":
    """Return a run's training in four panels: loss, loss by kind of row, loss by time, gradient norm.

    ``log`` holds the records of `log.jsonl`: "images", "loss", "loss_by_level" {tag: mean}, "loss_by_t" {tag: means
    over equal bins of t}, "grad_norm", "skipped". Values that are missing or null leave a gap. Raises ValueError
    for an empty log.
    """
    if not log:
        raise ValueError("the log holds no records yet: nothing to draw")
    figure, ((loss, level), (time, norm)) = panels(2, 2, height=2.75)
    images = [record["images"] for record in log]
    _line(loss, images, [record.get("loss") for record in log], SERIES[0])
    title(loss, "Loss, all rows")
    several = len(_tags(log, "loss_by_level")) > 1
    if several:
        _by_level(level, log, images)
        title(level, "Loss by kind of row")
    else:
        _line(level, images, [record.get("lr") for record in log], SERIES[0])
        level.set_ylim(0, 1.1 * level.dataLim.ymax or 1)
        title(level, "Learning rate")
    _by_time(time, log)
    title(time, "Loss by time", "last quarter of the run")
    _line(norm, images, [record.get("grad_norm") for record in log], SERIES[0])
    skipped = max(int(record.get("skipped") or 0) for record in log)
    title(norm, "Gradient norm", f"{skipped} updates skipped" if skipped else "")
    for axes in (loss, level, norm):
        axes.set_xlabel("images seen")
        axes.xaxis.set_major_formatter(_count)
    for axes in (loss, time, norm, *([level] if several else [])):
        _log_scale(axes)
    return figure


def score_figure(scores: Sequence[Record], metrics: Sequence[str] | None = None) -> "Figure":
    """Return scores over sampling steps, a panel a metric and a line a method, as in Figure 4 of Frans et al. 2024
    (log2 axis).

    Runs of one method, guidance scales and averages have a line each, named below the panels. ``scores`` are rows of
    `evaluate`. ``metrics`` None draws every metric that some row has. Raises ValueError when no
    row has any.
    """
    names = [name for name in metrics or measured(scores) if any(row.get(name) is not None for row in scores)]
    if not names:
        raise ValueError("no score to draw: every metric is missing or null")
    columns = min(len(names), 2)
    figure, grid = panels(-(-len(names) // columns), columns, height=2.9)
    groups = grouped(scores)
    called = labels(list(groups))
    budgets = sorted({row["steps"] for row in scores})
    for axes, name in zip(grid.flat, names, strict=False):
        for number, (who, rows) in enumerate(groups.items()):
            points = [(row["steps"], row[name]) for row in rows if row.get(name) is not None]
            _line(axes, [p[0] for p in points], [p[1] for p in points], _colour(number), called[who], marker="o")
            axes.get_lines()[-1].set_linestyle(STYLES[number // len(SERIES) % len(STYLES)])
        floor = draw_floor(axes, scores, name)
        title(axes, metric_title(name), ", ".join(filter(None, [direction(name), floor])))
        axes.set_xscale("log", base=2)
        axes.set_xticks(budgets, [str(budget) for budget in budgets])
        axes.minorticks_off()
        axes.set_xlabel("sampling steps")
        if direction(name) == LOWER:
            _log_scale(axes)
            if axes.get_yscale() == "linear":
                axes.set_ylim(0, 1.1 * axes.dataLim.ymax or 1)
        elif axes.dataLim.ymin >= 0 and axes.dataLim.ymax <= 1:
            axes.set_ylim(-0.03, 1.05)
    for axes in list(grid.flat)[len(names) :]:
        axes.set_visible(False)
    if len(groups) > 1:
        _name_below(figure, grid.flat[0].get_lines()[: len(groups)])
    return figure


def draw_floor(axes: Any, scores: Sequence[Record], name: str) -> str:
    """Draw the floor of a distance as a dotted line, where all records that have one agree; returns the key to it."""
    floor = common_floor(scores, name)
    if floor is None:
        return ""
    axes.axhline(floor, color=MUTED, linestyle=":", linewidth=1.1)
    return "dotted: the floor"


def _name_below(figure: "Figure", lines: Sequence[Any]) -> None:
    """Name the lines below the panels, in as many columns as fit; the figure grows by what that takes."""
    width, height = figure.get_size_inches()
    names = [textwrap.fill(str(line.get_label()), int((width - HANDLE) / LETTER)) for line in lines]
    longest = max(len(part) for name in names for part in name.splitlines())
    columns = min(len(names), max(1, int(width / (HANDLE + LETTER * longest))))
    deep = -(-len(names) // columns) * max(len(name.splitlines()) for name in names)
    figure.set_size_inches(width, height + LINE * deep)
    figure.legend(
        handles=lines,
        labels=names,
        loc="outside lower left",
        ncols=columns,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handlelength=2,
    )


def row_name(tag: str) -> str:
    """Return what a kind of row is called: a step d by its size, anything else by its own name."""
    return f"d = {tag}" if STEP.fullmatch(tag) else tag


def _by_level(axes: Any, log: Sequence[Record], images: Sequence[int]) -> None:
    """Draw a line a kind of row."""
    for tag, colour in _row_colours(_tags(log, "loss_by_level")).items():
        values = [(record.get("loss_by_level") or {}).get(tag) for record in log]
        _line(axes, images, values, colour, row_name(tag))
    legend(axes, loc="center left", bbox_to_anchor=(1, 0.5))


def _by_time(axes: Any, log: Sequence[Record]) -> None:
    """Draw the mean loss in each bin of t over the last quarter of the records, a line a kind of row."""
    last = log[-max(1, len(log) // 4) :]
    for tag, colour in _row_colours(_tags(log, "loss_by_t")).items():
        profiles = [record["loss_by_t"][tag] for record in last if tag in (record.get("loss_by_t") or {})]
        bins = list(zip(*profiles, strict=True))
        means = [_mean(values) for values in bins]
        middle = [(n + 0.5) / len(bins) for n in range(len(bins))]
        _line(axes, middle, means, colour, marker="o")
    axes.set_xlim(0, 1)
    axes.set_xlabel("t (0 noise, 1 data)")


def _row_colours(tags: Sequence[str]) -> dict[str, Any]:
    """Return a colour a kind of row: flow rows in ink, steps from small to large ones, others apart from these."""
    steps = [tag for tag in tags if STEP.fullmatch(tag)]
    others = [tag for tag in tags if tag != "flow" and tag not in steps]
    ladder = dict(zip(steps, _ladder(len(steps)), strict=True))
    named = {tag: _colour(number + 1) for number, tag in enumerate(others)}
    return {tag: INK if tag == "flow" else (ladder | named)[tag] for tag in tags}


def _ladder(count: int) -> list[Any]:
    """Return a colour a level, from small steps to large; the map's ends would vanish on a dark or a white page."""
    import matplotlib as mpl

    return [mpl.colormaps[LADDER_MAP](0.25 + 0.6 * n / max(1, count - 1)) for n in range(count)]


def _tags(log: Sequence[Record], name: str) -> list[str]:
    """Return the kinds of row that any record has a value for, in the log's order."""
    return list(dict.fromkeys(tag for record in log for tag in record.get(name) or {}))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _line(
    axes: Any, x: Sequence[float], y: Sequence[float | None], colour: Any, label: str = "", marker: str = ""
) -> None:
    values = [float("nan") if value is None else value for value in y]
    alone = sum(value is not None for value in y) == 1
    axes.plot(x, values, color=colour, label=label, marker="o" if alone else marker, markersize=4.2, linewidth=1.7)


def _log_scale(axes: Any) -> None:
    """Use a log axis, with plain numbers, where the values span more than a factor of three and are positive."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = [v for line in axes.get_lines() for v in line.get_ydata() if isfinite(v)]
    if values and min(values) > 0 and max(values) > 3 * min(values):
        axes.set_yscale("log")
        wide = max(values) > 100 * min(values)
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.ticklabel_format(axis="y", useOffset=False)


def _colour(number: int) -> str:
    return SERIES[number % len(SERIES)]


def _count(value: float, _: int | None = None) -> str:
    """Return a number of images in short: 250k, 1.5M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
