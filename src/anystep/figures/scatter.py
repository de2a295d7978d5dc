"""Two-dimensional samples as points, in front of the data."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anystep.figures.canvas import FAINT, MUTED, SERIES, panels
from anystep.figures.methods import METHODS, display_name, line_style, steps_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: largest number of points in a panel
POINTS = 2000
#: inches per letter of a row's label
LETTER = 0.075


def scatter(
    samples: Mapping[str, Mapping[int, NDArray[Any]]],
    data: NDArray[Any] | None = None,
    *,
    steps: Sequence[int] | None = None,
    side: float = 2.2,
) -> "Figure":
    """Return a figure of points [n, 2], ``data`` in grey behind them: a row per method, a column per number of steps.

    Panels are ``side`` inches wide; columns are ``steps``, or all that have samples.
    All axes have the range of ``data``, or of all points. Raises ValueError without points, or if they are not [n, 2].
    """
    steps = steps or sorted({n for by_steps in samples.values() for n in by_steps})
    if not steps:
        raise ValueError("nothing to draw: no method has samples")
    drawn = [points for by_steps in samples.values() for points in by_steps.values()]
    for points in drawn if data is None else [*drawn, data]:
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f"points must have shape [n, 2], got {list(points.shape)}")
    low, high = middle_range(np.concatenate(drawn) if data is None else data)
    centre, reach = (low + high) / 2, float((high - low).max()) / 2
    limits = {"xlim": (centre[0] - reach, centre[0] + reach), "ylim": (centre[1] - reach, centre[1] + reach)}
    longest = max(map(len, samples)) * LETTER
    beside = longest if longest > side else 0.0  # inches; a label longer than its panel is tall is written horizontally
    upright: dict[str, Any] = {"rotation": 0, "ha": "right", "va": "center"} if beside else {}
    width, height = side * len(steps) + beside, side - 0.1 if beside else side + 0.15
    figure, axes = panels(len(samples), len(steps), width=width, height=height, sharex=True, sharey=True)
    for number, (method, by_steps) in enumerate(samples.items()):
        colour = line_style(method).colour if method in METHODS else SERIES[number % len(SERIES)]
        for panel, n in zip(axes[number], steps, strict=True):
            panel.grid(visible=False)
            panel.set(xticks=[], yticks=[], aspect="equal", **limits)
            panel.spines[:].set(visible=True, color=FAINT)
            draw_points(panel, by_steps.get(n), data, colour, POINTS)
            if number == 0:
                panel.set_title(steps_name(n), loc="center")
        axes[number, 0].set_ylabel(display_name(method), **upright)
    return figure


def draw_points(panel: Any, points: NDArray[Any] | None, data: NDArray[Any] | None, colour: Any, most: int) -> None:
    """Draw at most ``most`` points [n, 2] over as many of ``data`` in grey."""
    if data is not None:
        panel.scatter(*data[:most].T, s=2.5, color=MUTED, alpha=0.22, linewidths=0)
    if points is not None:
        panel.scatter(*points[:most].T, s=3, color=colour, linewidths=0)


def middle_range(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the ends [D] of a range around the middle 99 % of values [n, D]: outliers do not count."""
    finite = values[np.isfinite(values).all(1)]
    low, high = np.quantile(finite if len(finite) else np.zeros((1, values.shape[1])), [0.005, 0.995], axis=0)
    reach = np.where(high > low, 0.62 * (high - low), np.maximum(1e-3, 0.05 * np.abs(high)))
    return (low + high) / 2 - reach, (low + high) / 2 + reach
