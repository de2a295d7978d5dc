"""Two-dimensional samples as points, beside the data."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anystep.figures.canvas import FAINT, MUTED, SERIES, panels
from anystep.figures.methods import known, look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 2000
#: inches that a letter of a row's name takes
LETTER = 0.075


def scatter(
    rows: Mapping[str, Mapping[int, NDArray[Any]]],
    data: NDArray[Any] | None = None,
    *,
    budgets: Sequence[int] | None = None,
    side: float = 2.2,
) -> "Figure":
    """Return a panel a method (row) and number of steps (column) of points [n, 2]; ``data`` lies faintly behind each.

    At most 2,000 points of each are drawn, in panels ``side`` inches wide; columns are ``budgets``, or all from few
    steps to many. All panels have the axes of ``data``, or of all points without it. Raises ValueError for points that
    are not [n, 2] and when there is nothing to draw.
    """
    budgets = budgets or sorted({budget for panel in rows.values() for budget in panel})
    if not budgets:
        raise ValueError("nothing to draw: no method has samples")
    everything = [points for panel in rows.values() for points in panel.values()]
    for points in everything if data is None else [*everything, data]:
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f"points must have shape [n, 2], got {list(points.shape)}")
    low, high = _frame(np.concatenate(everything) if data is None else data)
    names = max(map(len, rows)) * LETTER
    beside = names if names > side else 0.0  # a name that is longer than its panel is tall stands upright
    upright: dict[str, Any] = {"rotation": 0, "ha": "right", "va": "center"} if beside else {}
    width = side * len(budgets) + beside
    height = side - 0.1 if beside else side + 0.15
    figure, axes = panels(len(rows), len(budgets), width=width, height=height, sharex=True, sharey=True)
    for number, (method, panel) in enumerate(rows.items()):
        colour = look(method).colour if known(method) else SERIES[number % len(SERIES)]
        for column, budget in enumerate(budgets):
            place = axes[number, column]
            place.grid(visible=False)
            place.set(xticks=[], yticks=[], xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
            place.spines[:].set(visible=True, color=FAINT)
            if data is not None:
                place.scatter(*data[:POINTS].T, s=2.5, color=MUTED, alpha=0.22, linewidths=0)
            if budget in panel:
                place.scatter(*panel[budget][:POINTS].T, s=3, color=colour, linewidths=0)
            if number == 0:
                place.set_title(f"{budget} step{'s' if budget > 1 else ''}", loc="center")
        axes[number, 0].set_ylabel(method.replace("_", " "), **upright)
    return figure


def _frame(points: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a square around the middle 99 % of the points: a stray sample must not shrink the picture."""
    low, high = np.nanquantile(points, 0.005, axis=0), np.nanquantile(points, 0.995, axis=0)
    centre, reach = (low + high) / 2, max(float((high - low).max()), 1e-6) * 0.62
    return centre - reach, centre + reach
