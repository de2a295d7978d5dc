"""Curves of a run: its losses and gradients over images seen, and its scores over sampling steps."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from anystep.report.canvas import INK, LADDER_MAP, MUTED, SERIES, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]

TITLES = {
    "frechet": "Fréchet distance",
    "precision": "Precision",
    "recall": "Recall",
    "accuracy": "Class accuracy",
    "energy": "Energy distance",
}
LOWER_IS_BETTER = ("frechet", "energy")


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
    _line(loss, images, [record.get("loss") for record in log], SERIES[0], "")
    _by_level(level, log, images)
    _by_time(time, log)
    _line(norm, images, [record.get("grad_norm") for record in log], SERIES[0], "")
    skipped = max(int(record.get("skipped") or 0) for record in log)
    titles = ("Loss, all rows", "Loss by kind of row", "Loss by time, last quarter", "Gradient norm")
    for axes, title in zip((loss, level, time, norm), titles, strict=True):
        axes.set_title(title)
        if axes is not time:
            axes.set_xlabel("images seen")
            axes.xaxis.set_major_formatter(_count)
        _log_scale(axes)
    if skipped:
        norm.set_title(f"Gradient norm ({skipped} updates skipped)")
    return figure


def score_figure(scores: Sequence[Record], metrics: Sequence[str] | None = None) -> "Figure":
    """Return scores over sampling steps, a panel a metric and a line a method, as in P1's Figure 4 (log2 axis).

    ``scores`` are rows of `evaluate`. ``metrics`` None draws every metric that some row has. Raises ValueError when no
    row has any.
    """
    names = [name for name in metrics or TITLES if any(row.get(name) is not None for row in scores)]
    if not names:
        raise ValueError("no score to draw: every metric is missing or null")
    columns = min(len(names), 2)
    figure, grid = panels(-(-len(names) // columns), columns, height=2.9)
    lines = _lines(scores)
    budgets = sorted({row["steps"] for row in scores})
    for axes, name in zip(grid.flat, names, strict=False):
        for number, (label, rows) in enumerate(lines.items()):
            points = sorted((row["steps"], row[name]) for row in rows if row.get(name) is not None)
            _line(axes, [p[0] for p in points], [p[1] for p in points], _colour(number), label, marker="o")
        better = "lower is better" if name in LOWER_IS_BETTER else "higher is better"
        axes.set_title(TITLES.get(name, name))
        axes.annotate(better, (1, 1), xycoords="axes fraction", xytext=(0, 9), textcoords="offset points",
                      ha="right", fontsize=8.5, color=MUTED)  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks(budgets, [str(budget) for budget in budgets])
        axes.minorticks_off()
        axes.set_xlabel("sampling steps")
        if name in LOWER_IS_BETTER:
            _log_scale(axes)
        else:
            axes.set_ylim(-0.03, 1.05)
    for axes in list(grid.flat)[len(names) :]:
        axes.set_visible(False)
    grid.flat[0].legend(loc="best")
    return figure


def _lines(scores: Sequence[Record]) -> dict[str, list[Record]]:
    """Return the rows of each line: a method, told apart by run and guidance where it has several."""
    seen: dict[Any, set[tuple[str, str]]] = {}
    for row in scores:
        seen.setdefault(row["method"], set()).add((str(row.get("run", "")), str(row.get("guidance"))))
    lines: dict[str, list[Record]] = {}
    for row in scores:
        variants = seen[row["method"]]
        label = str(row["method"]).replace("_", " ")
        if len({run for run, _ in variants}) > 1:
            label += f" ({row.get('run')})"
        if len({guidance for _, guidance in variants}) > 1:
            label += f", guidance {row.get('guidance')}"
        lines.setdefault(label, []).append(row)
    return lines


def _by_level(axes: Any, log: Sequence[Record], images: Sequence[int]) -> None:
    """Draw a line a kind of row: flow rows in ink, self-consistency levels from small steps to large ones."""
    import matplotlib as mpl

    tags = list(dict.fromkeys(tag for record in log for tag in record.get("loss_by_level") or {}))
    levels = [tag for tag in tags if tag != "flow"]
    colours = mpl.colormaps[LADDER_MAP].resampled(max(2, len(levels) + 1))
    for tag in tags:
        values = [(record.get("loss_by_level") or {}).get(tag) for record in log]
        flow = tag == "flow"
        _line(axes, images, values, INK if flow else colours(levels.index(tag)), "flow" if flow else f"d = {tag}")
    if tags:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1.2, labelspacing=0.35)


def _by_time(axes: Any, log: Sequence[Record]) -> None:
    """Draw the mean loss in each bin of t over the last quarter of the records, for flow and other rows."""
    import matplotlib as mpl

    last = [record.get("loss_by_t") or {} for record in log[-max(1, len(log) // 4) :]]
    tags = list(dict.fromkeys(tag for record in last for tag in record))
    levels = [tag for tag in tags if tag != "flow"]
    colours = mpl.colormaps[LADDER_MAP].resampled(max(2, len(levels) + 1))
    for tag in tags:
        bins = list(zip(*[record[tag] for record in last if tag in record], strict=False))
        means = [_mean(values) for values in bins]
        middle = [(n + 0.5) / len(bins) for n in range(len(bins))]
        _line(axes, middle, means, INK if tag == "flow" else colours(levels.index(tag)), tag, marker="o")
    axes.set_xlim(0, 1)
    axes.set_xlabel("t (0 noise, 1 data)")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _line(axes: Any, x: Sequence[float], y: Sequence[float | None], colour: Any, label: str, marker: str = "") -> None:
    values = [float("nan") if value is None else value for value in y]
    alone = sum(value is not None for value in y) == 1
    axes.plot(x, values, color=colour, label=label, marker="o" if alone else marker, markersize=4.2)


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


def _colour(number: int) -> str:
    return SERIES[number % len(SERIES)]


def _count(value: float, _: int | None = None) -> str:
    """Return a number of images in short: 250k, 1.5M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
