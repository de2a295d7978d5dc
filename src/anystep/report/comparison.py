"""Scores of a comparison over the number of sampling steps, as in Figure 4 of Frans et al. 2024."""

from collections.abc import Mapping, Sequence
from math import isfinite, log
from typing import TYPE_CHECKING, Any

from anystep.figures.canvas import MUTED, legend, panels
from anystep.figures.methods import by_group, display_name, line_style
from anystep.report.curves import finish_score_axes
from anystep.report.series import ScoreRecord, metric_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: smallest distance between the names of two lines, as a fraction of the panel's height
ROOM = 0.044


def comparison_figure(
    summary: Sequence[ScoreRecord], scores: Sequence[ScoreRecord], metric: str = "frechet"
) -> "Figure":
    """Return Figure 4 of Frans et al. 2024: a metric over the number of steps, fewer to the right, a line per method.

    Lines are means over seeds and bars the range over seeds; hollow markers are numbers of steps that the method is not
    intended for. ``summary`` and ``scores`` are those of a `Comparison`. Raises ValueError if no method has the metric.
    """
    means = {
        (row["method"], row["steps"]): row["mean"][metric] for row in summary if row["mean"].get(metric) is not None
    }
    if not any(map(isfinite, means.values())):
        raise ValueError(f"no score to draw: {metric} is missing or null everywhere")
    figure, ((axes,),) = panels(1, 1, width=9.6, height=5.6)
    steps = sorted({row["steps"] for row in summary})
    groups = by_group(row["method"] for row in summary)
    for method in (name for names in groups.values() for name in names):
        rows = [row for row in summary if (method, row["steps"]) in means and row["method"] == method]
        _draw_method(axes, method, rows, [record for record in scores if record["method"] == method], metric)
    scales = sorted({row["guidance"] for row in summary if row.get("guidance") is not None})
    remarks = f"guidance {', '.join(f'{scale:g}' for scale in scales)} where it is an input" if scales else ""
    finish_score_axes(axes, metric, scores, f"{metric_title(metric)} at equal compute", remarks, steps)
    axes.set_xlim(steps[-1] * 1.15, steps[0] / 1.15)
    _name_lines(axes, means, steps)
    cautioned = [row["method"] for row in summary if row["caution"] is not None]
    _explain(figure, groups, cautioned)
    return figure


def _draw_method(
    axes: Any, method: str, rows: Sequence[ScoreRecord], scores: Sequence[ScoreRecord], metric: str
) -> None:
    """Draw the means of a method, and bars over its seeds."""
    style, bold = line_style(method), method == "shortcut"
    shared = {"color": style.colour, "zorder": 4 if bold else 3}
    rows = sorted(rows, key=lambda row: row["steps"])
    x, y = [row["steps"] for row in rows], [row["mean"][metric] for row in rows]
    axes.plot(x, y, linestyle=style.dashes, linewidth=style.width, label=method, **shared)
    for row in rows:
        face = style.colour if row["caution"] is None else "white"
        axes.plot(row["steps"], row["mean"][metric], style.marker, mfc=face, ms=6.4 if bold else 5.2, **shared)
        seeds = [s[metric] for s in scores if s["steps"] == row["steps"] and s.get(metric) is not None]
        if len(seeds) > 1:
            axes.plot([row["steps"]] * 2, [min(seeds), max(seeds)], linewidth=1.2, alpha=0.6, color=style.colour)


def _name_lines(axes: Any, means: Mapping[tuple[str, int], float], steps: Sequence[int]) -> None:
    """Write each method's name to the right of its value in the fewest steps, without overlaps."""
    place = log if axes.get_yscale() == "log" else float
    low, high = map(place, axes.get_ylim())
    ends: dict[str, float] = {}
    for (method, n), value in means.items():
        if n == steps[0] or method not in ends:
            ends[method] = (place(value) - low) / (high - low)
    order = sorted(ends, key=lambda method: ends[method])
    for method, y in zip(order, spread_out([ends[m] for m in order], ROOM), strict=True):
        outside = {"transform": axes.transAxes, "clip_on": False, "color": line_style(method).colour}
        axes.plot([1.005, 1.03], [ends[method], y], linewidth=0.8, alpha=0.7, scalex=False, scaley=False, **outside)
        weight, size = ("bold", 10.5) if method == "shortcut" else ("normal", 9.5)
        axes.text(1.037, y, display_name(method), va="center", fontweight=weight, fontsize=size, **outside)


def spread_out(places: Sequence[float], room: float) -> list[float]:
    """Return ascending places at least ``room`` apart, with the smallest sum of squared moves.

    Pool adjacent violators: places that would overlap are spread around their mean.
    """
    pools: list[tuple[float, int]] = []  # mean of (place - room x rank), count
    for rank, place in enumerate(places):
        pools.append((place - room * rank, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (first, n), (second, m) = pools[-2:]
            pools[-2:] = [((first * n + second * m) / (n + m), n + m)]
    levels = [level for level, count in pools for _ in range(count)]
    return [level + room * rank for rank, level in enumerate(levels)]


def _explain(figure: Any, groups: Mapping[str, Sequence[str]], cautioned: Sequence[str]) -> None:
    """Explain the dashes and markers of groups, and hollow markers, below the panel."""
    from matplotlib.lines import Line2D

    styles = {group: line_style(methods[0]) for group, methods in groups.items()}
    handles = [
        Line2D([], [], color=MUTED, linestyle=style.dashes, marker=style.marker, ms=5, label=group)
        for group, style in styles.items()
    ]
    if cautioned:
        marker, label = line_style(cautioned[0]).marker, "not intended for this number of steps"
        handles.append(Line2D([], [], color=MUTED, linestyle="", marker=marker, mfc="white", label=label))
    if len(handles) > 1:
        legend(figure, handles=handles, loc="outside lower left", ncols=4, handlelength=3.2)
