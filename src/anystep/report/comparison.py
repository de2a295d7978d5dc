"""Score against sampling steps, a line a method, as in Figure 4 of Frans et al. 2024."""

from collections.abc import Mapping, Sequence
from math import isfinite, log
from typing import TYPE_CHECKING, Any

from anystep.figures.canvas import INK, MUTED, panels, title
from anystep.figures.methods import grouped, look, words
from anystep.report.curves import draw_floor
from anystep.report.rows import HIGHER, LOWER, common_floor, direction, metric_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

#: least distance between the names at the ends of lines, a share of the panel's height
ROOM = 0.044


def comparison_figure(summary: Sequence[Row], scores: Sequence[Row], metric: str = "frechet") -> "Figure":
    """Return Figure 4 of Frans et al. 2024: a metric against sampling steps, fewer to the right, a line a method with
    its name.

    Lines are means over seeds, bars reach from the smallest to the largest; hollow markers are budgets that the method
    is not for. ``summary`` and ``scores`` are those of a comparison. Raises ValueError when no row has the metric.
    """
    means = {(row["method"], row["steps"]): row["mean"].get(metric) for row in summary}
    known = [value for value in means.values() if value is not None and isfinite(value)]
    if not known:
        raise ValueError(f"no score to draw: {metric} is missing or null everywhere")
    figure, ((axes,),) = panels(1, 1, width=9.6, height=5.6)
    budgets = sorted({row["steps"] for row in summary})
    for method in (name for names in grouped(row["method"] for row in summary).values() for name in names):
        rows = [row for row in summary if row["method"] == method and row["mean"].get(metric) is not None]
        _method_line(axes, method, rows, [row for row in scores if row["method"] == method], metric)
    axes.set_xscale("log", base=2)
    axes.set_xticks(budgets, [str(n) for n in budgets])
    axes.minorticks_off()
    axes.set_xlim(budgets[-1] * 1.15, budgets[0] / 1.15)
    axes.set_xlabel("sampling steps")
    floor = common_floor(scores, metric)
    _scale(axes, known if floor is None else [*known, floor], metric)
    told = ", ".join(
        f"{scale:g}" for scale in sorted({row["guidance"] for row in summary if row.get("guidance") is not None})
    )
    better = ", ".join(filter(None, [direction(metric), draw_floor(axes, scores, metric)]))
    better += f"; guidance {told} where the network is told it" if told else ""
    title(axes, f"{metric_title(metric)} at equal compute", better)
    _name_lines(axes, means, budgets)
    _key(figure, summary)
    return figure


def _method_line(axes: Any, method: str, rows: Sequence[Row], scores: Sequence[Row], metric: str) -> None:
    """Draw one method: the means, hollow where they were not meant, and bars over the seeds."""
    shown = look(method)
    rows = sorted(rows, key=lambda row: row["steps"])
    above = {"zorder": 4 if method == "shortcut" else 3}
    x, y = [row["steps"] for row in rows], [row["mean"][metric] for row in rows]
    axes.plot(x, y, color=shown.colour, linestyle=shown.style, linewidth=shown.width, label=method, **above)
    for row in rows:
        hollow = row["caution"] is not None
        face = "white" if hollow else shown.colour
        size = 6.4 if method == "shortcut" else 5.2
        axes.plot([row["steps"]], [row["mean"][metric]], shown.marker, color=shown.colour, mfc=face, ms=size, **above)
        seeds = [s[metric] for s in scores if s["steps"] == row["steps"] and s.get(metric) is not None]
        if len(seeds) > 1:
            axes.plot([row["steps"]] * 2, [min(seeds), max(seeds)], color=shown.colour, linewidth=1.2, alpha=0.6)


def _scale(axes: Any, values: Sequence[float], metric: str) -> None:
    """Use a log axis with plain numbers for distances, whose smallest differences matter most."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if direction(metric) == LOWER and min(values) > 0:
        axes.set_yscale("log")
        wide = max(values) > 300 * min(values)
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 3.0) if wide else (1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(min(values) / 1.25, max(values) * 1.25)
    elif direction(metric) == HIGHER and max(values) <= 1:
        axes.set_ylim(-0.03, 1.05)


def _name_lines(axes: Any, means: Mapping[tuple[str, int], float | None], budgets: Sequence[int]) -> None:
    """Write each method's name beside its value at the fewest steps, apart from one another."""
    low, high = axes.get_ylim()
    place = log if axes.get_yscale() == "log" else float
    ends: dict[str, float] = {}
    for (method, steps), value in means.items():
        if value is not None and (steps == budgets[0] or method not in ends):
            ends[method] = (place(value) - place(low)) / (place(high) - place(low))
    order = sorted(ends, key=lambda method: ends[method])
    for method, y in zip(order, spread_out([ends[m] for m in order], ROOM), strict=True):
        shown, bold = look(method), method == "shortcut"
        outside = {"transform": axes.transAxes, "clip_on": False, "color": shown.colour}
        axes.plot([1.005, 1.03], [ends[method], y], linewidth=0.8, alpha=0.7, scalex=False, scaley=False, **outside)
        weight, size = ("bold", 10.5) if bold else ("normal", 9.5)
        axes.text(1.037, y, words(method), va="center", fontweight=weight, fontsize=size, **outside)


def spread_out(places: Sequence[float], room: float) -> list[float]:
    """Return rising places at least ``room`` apart, each as near to where it was as its neighbours allow.

    Places that would overlap share out around the middle of where they were (pool adjacent violators).
    """
    pools: list[tuple[float, int]] = []  # mean of (place - room x rank), count
    for rank, place in enumerate(places):
        pools.append((place - room * rank, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (first, n), (second, m) = pools[-2:]
            pools[-2:] = [((first * n + second * m) / (n + m), n + m)]
    levels = [level for level, count in pools for _ in range(count)]
    return [level + room * rank for rank, level in enumerate(levels)]


def _key(figure: Any, summary: Sequence[Row]) -> None:
    """Say below the panel what line styles and hollow markers mean."""
    from matplotlib.lines import Line2D

    parts = list(grouped(row["method"] for row in summary).items())
    handles = []
    for part, methods in parts:
        shown = look(methods[0])
        handles.append(Line2D([], [], color=MUTED, linestyle=shown.style, marker=shown.marker, ms=5, label=part))
    if any(row["caution"] is not None for row in summary):
        marker = look(next(row["method"] for row in summary if row["caution"] is not None)).marker
        handles.append(
            Line2D([], [], color=MUTED, linestyle="", marker=marker, mfc="white", label="not intended for this budget")
        )
    if len(handles) > 1:
        figure.legend(
            handles=handles,
            loc="outside lower left",
            ncols=4,
            frameon=False,
            fontsize=9,
            labelcolor=INK,
            handlelength=3.2,
        )
