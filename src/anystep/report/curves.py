"""Curves of a run: its losses during training, and its scores over the number of sampling steps."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from anystep.core.errors import counted
from anystep.evaluation.scores import measured
from anystep.figures.canvas import INK, MUTED, SERIES, colour_scale, legend, panels, title
from anystep.report.series import ScoreRecord, better, by_series, common_floor, metric_title, series_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: of lines, when there are more lines than colours
DASHES = ("-", "--", ":", "-.")
#: inches in a legend: per letter, per line of text, and for the line before it
LETTER, LINE, HANDLE = 0.075, 0.19, 0.5
#: fields of a log record that some runs have, by kind of example, and the titles of their panels
DETAILS = {
    "weight_by_level": "Weight by kind of example",
    "error_by_level": "Mean squared error by kind",
    "gradient_norm": "Gradient norm by kind",
    "gradient_cosine": "Cosine with the flow's gradient",
}
#: a kind of example that is named by its step size: 1, 1/64
STEP_SIZE = re.compile(r"\d+(/\d+)?")


def loss_figure(log: Sequence[Mapping[str, Any]]) -> "Figure":
    """Return a run's training in four panels: loss, loss by kind of example, loss by time, gradient norm.

    More panels follow for what only some logs have by kind of example: the weight and the mean squared error; norms of
    gradients and their cosines with that of the flow examples, also of all `marked` examples together (dashed).
    ``log``: records of `log.jsonl`. Missing values leave a gap. With one kind of example the second panel is the
    learning rate. Raises ValueError for an empty log.
    """
    if not log:
        raise ValueError("the log holds no records yet: nothing to draw")
    details = [field for field in DETAILS if any(record.get(field) for record in log)]
    figure, grid = panels(2 + (len(details) + 1) // 2, 2, height=2.75)
    loss, level, time, norm, *others = grid.flat
    from matplotlib.ticker import EngFormatter

    images = [record["images"] for record in log]
    colours = _kind_colours(log)
    _plot(loss, images, [record.get("loss") for record in log], SERIES[0])
    title(loss, "Loss, all examples")
    if len(colours) > 1:
        _plot_by_kind(level, images, [record.get("loss_by_level") or {} for record in log], colours)
        title(level, "Loss by kind of example")
        legend(level, loc="center left", bbox_to_anchor=(1, 0.5))
        _log_scale(level)
    else:
        _plot(level, images, [record.get("lr") for record in log], SERIES[0])
        title(level, "Learning rate")
        level.set_ylim(0, 1.1 * level.dataLim.ymax or 1)
    recent = [record.get("loss_by_t") or {} for record in log[-max(1, len(log) // 4) :]]
    for kind, colour in colours.items():
        bins = [losses[kind] for losses in recent if kind in losses]
        if bins:
            means = np.ma.masked_invalid(np.array(bins, dtype=float)).mean(0).filled(np.nan)
            _plot(time, (np.arange(len(means)) + 0.5) / len(means), means, colour, marker="o")
    time.set(xlim=(0, 1), xlabel="t (0 noise, 1 data)")
    title(time, "Loss by time", "last quarter of the run")
    _plot(norm, images, [record.get("grad_norm") for record in log], SERIES[0])
    skipped = max(int(record.get("skipped") or 0) for record in log)
    title(norm, "Gradient norm", f"{counted(skipped, 'update')} skipped" if skipped else "")
    for axes, field in zip(others, details, strict=False):
        _plot_by_kind(axes, images, [record.get(field) or {} for record in log], colours)
        marked = [(record.get(field) or {}).get("marked") for record in log]
        if any(value is not None for value in marked):
            _plot(axes, images, marked, SERIES[0], linestyle="--")
        title(axes, DETAILS[field], "dashed: marked ones together" if field.startswith("gradient") else "")
    for axes in others[len(details) :]:
        axes.set_visible(False)
    for axes in (loss, level, norm, *others):
        axes.set_xlabel("images seen")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    measured = [axes for axes, field in zip(others, details, strict=False) if field != "gradient_cosine"]
    for axes in (loss, time, norm, *measured):
        _log_scale(axes)
    return figure


def _plot_by_kind(
    axes: Any, images: Sequence[int], values: Sequence[Mapping[str, Any]], colours: Mapping[str, Any]
) -> None:
    """Plot a line for each kind of example, of ``values`` by kind at each number of ``images``."""
    for kind, colour in colours.items():
        _plot(axes, images, [each.get(kind) for each in values], colour, label=kind_name(kind))


def kind_name(tag: str) -> str:
    """Return the name of a kind of example: "d = 1/64" for a step size, else the tag."""
    return f"d = {tag}" if STEP_SIZE.fullmatch(tag) else tag


def _kind_colours(log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a colour for each kind of example, in the log's order: a scale for step sizes, ink for flow matching."""
    parts = [record.get(name) or {} for record in log for name in ("loss_by_level", "loss_by_t")]
    kinds = list(dict.fromkeys(kind for part in parts for kind in part))
    steps = [kind for kind in kinds if STEP_SIZE.fullmatch(kind)]
    others = [kind for kind in kinds if kind != "flow" and kind not in steps]
    colours = dict(zip(steps, colour_scale(len(steps)), strict=True)) | {"flow": INK}
    colours |= {kind: SERIES[number % len(SERIES)] for number, kind in enumerate(others, start=1)}
    return {kind: colours[kind] for kind in kinds}


def score_figure(scores: Sequence[ScoreRecord], metrics: Sequence[str] | None = None) -> "Figure":
    """Return scores over the number of sampling steps: a panel per metric, a line per series (`by_series`).

    ``metrics`` None: all that a record has. Raises ValueError without any score.
    """
    names = [name for name in metrics or measured(scores) if any(record.get(name) is not None for record in scores)]
    if not names:
        raise ValueError("no score to draw: every metric is missing or null")
    columns = min(len(names), 2)
    figure, grid = panels(-(-len(names) // columns), columns, height=2.9)
    series = by_series(scores)
    labels = series_labels(list(series))
    for axes, name in zip(grid.flat, names, strict=False):
        for number, (key, records) in enumerate(series.items()):
            style = {"linestyle": DASHES[number // len(SERIES) % len(DASHES)], "marker": "o", "label": labels[key]}
            steps, values = [record["steps"] for record in records], [record.get(name) for record in records]
            _plot(axes, steps, values, SERIES[number % len(SERIES)], **style)
        finish_score_axes(axes, name, scores, metric_title(name))
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    if len(series) > 1:
        _legend_below(figure, grid.flat[0].get_lines()[: len(series)])
    return figure


def finish_score_axes(
    axes: Any, metric: str, scores: Sequence[ScoreRecord], heading: str, remarks: str = "", steps: Sequence[int] = ()
) -> None:
    """Add the floor with its deviation, the title and the scales to a panel of a metric over the number of steps.

    ``steps``: the ticks, by default those of ``scores``. Distances are on a log scale where they span enough.
    """
    floor = common_floor(scores, metric)
    if floor is not None:
        axes.axhline(floor.value, color=MUTED, linestyle=":", linewidth=1.1)
        if floor.deviation:
            axes.axhspan(floor.value, floor.value + floor.deviation, color=MUTED, alpha=0.15, linewidth=0)
    direction = f"{better(metric)} is better" if better(metric) else ""
    key = filter(None, [direction, "" if floor is None else "dotted: the floor", remarks])
    title(axes, heading, ", ".join(key))
    steps = steps or sorted({record["steps"] for record in scores})
    axes.set_xscale("log", base=2)
    axes.set_xticks(steps, [str(n) for n in steps])
    axes.minorticks_off()
    axes.set_xlabel("sampling steps")
    if better(metric) == "lower":
        _log_scale(axes)
        if axes.get_yscale() == "linear":
            axes.set_ylim(0, 1.1 * axes.dataLim.ymax or 1)
    elif axes.dataLim.ymin >= 0 and axes.dataLim.ymax <= 1:
        axes.set_ylim(-0.03, 1.05)


def _legend_below(figure: "Figure", lines: Sequence[Any]) -> None:
    """Name the lines below the panels, in as many columns as fit. The figure becomes taller by the legend's height."""
    width, height = figure.get_size_inches()
    names = [textwrap.fill(str(line.get_label()), int((width - HANDLE) / LETTER)) for line in lines]
    longest = max(len(part) for name in names for part in name.splitlines())
    columns = max(1, min(len(names), int(width / (HANDLE + LETTER * longest))))
    deep = -(-len(names) // columns) * max(len(name.splitlines()) for name in names)
    figure.set_size_inches(width, height + LINE * deep)
    legend(figure, handles=lines, labels=names, loc="outside lower left", ncols=columns, handlelength=2)


def _plot(axes: Any, x: Any, y: Any, colour: Any, **style: Any) -> None:
    """Plot a line with gaps at missing values. A single value is a point."""
    values = np.array(y, dtype=float)
    marker = "o" if np.isfinite(values).sum() == 1 else ""
    axes.plot(x, values, color=colour, **{"marker": marker, "markersize": 4.2, "linewidth": 1.7} | style)


def _log_scale(axes: Any) -> None:
    """Use a log scale with plain numbers if the values are positive and span more than a factor of three."""
    from matplotlib.ticker import LogLocator, NullFormatter

    values = [v for line in axes.get_lines() for v in line.get_ydata() if isfinite(v)]
    if values and min(values) > 0 and max(values) > 3 * min(values):
        axes.set_yscale("log")
        wide = max(values) > 100 * min(values)
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.ticklabel_format(axis="y", useOffset=False)
