"""Vectors of any number of columns: how the values of each column are distributed, and pairs of columns as points."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anystep.figures.canvas import INK, LADDER_MAP, MUTED, legend, panels, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: panels side by side
ACROSS = 4
#: columns that have a histogram, and pairs of columns that have a row of points, at most
COLUMNS, PAIRS = 16, 3
BINS, POINTS = 40, 1000


def marginals(samples: Mapping[int, NDArray[Any]], data: NDArray[Any] | None = None) -> "Figure":
    """Return histograms of each column, and the pairs of columns that depend on each other most, as points.

    ``samples``: vectors [n, D] by number of steps. ``data`` [m, D] is shown in grey. The first 16 columns have a
    histogram, a line for each number of steps; pairs are chosen by correlation in the data, or in the samples of most
    steps without it, and shown for at most four numbers of steps. Raises ValueError for arrays that are not [n, D],
    and when there is nothing to draw.
    """
    if not samples:
        raise ValueError("nothing to draw: no samples")
    every = [*samples.values(), *([] if data is None else [data])]
    width = every[0].shape[-1]
    if any(rows.ndim != 2 or rows.shape[1] != width for rows in every):
        raise ValueError(f"vectors must have shape [n, D], got {[list(rows.shape) for rows in every]}")
    budgets = sorted(samples)
    shown, pairs, few = min(width, COLUMNS), _pairs(samples[budgets[-1]] if data is None else data), _few(budgets)
    scatters = [[(pair, n) for n in few] for pair in pairs] if few[1:] else [[(pair, few[0]) for pair in pairs]]
    rows = -(-shown // ACROSS)
    figure, axes = panels(rows + len(list(filter(None, scatters))), ACROSS, width=10.5, height=2.3)
    for place in axes.flat:
        place.set_visible(False)
    colours = _colours(budgets)
    for column, place in zip(range(shown), axes.flat, strict=False):
        values = {n: samples[n][:, column] for n in budgets}
        _histogram(place, values, None if data is None else data[:, column], colours)
        title(place, f"column {column}", f"of {width}" if column == shown - 1 < width - 1 else "")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    legend(figure, handles=handles, labels=labels, loc="outside upper left", ncols=len(labels))
    for line, scattered in zip(axes[rows:], scatters, strict=False):
        for place, (pair, n) in zip(line, scattered, strict=False):
            _points(place, samples[n][:, pair], None if data is None else data[:, pair], colours[n])
            title(place, f"{n} step{'s' if n > 1 else ''}")
            place.set_xlabel(f"column {pair[0]}")
            place.set_ylabel(f"column {pair[1]}")
    return figure


def _histogram(
    place: Any, by: Mapping[int, NDArray[Any]], data: NDArray[Any] | None, colours: Mapping[int, Any]
) -> None:
    """Draw a column's densities on common bins; of a column that is one value, a peak there."""
    place.set_visible(True)
    low, high = _range(by[max(by)] if data is None else data)
    edges = np.linspace(low, high, BINS + 1)
    if data is not None:
        place.stairs(_density(data, edges), edges, fill=True, color=MUTED, alpha=0.3, label="data")
    for n, values in by.items():
        label = f"{n} step{'s' if n > 1 else ''}"
        place.stairs(_density(values, edges), edges, color=colours[n], linewidth=1.3, label=label)
    place.set_yticks([])
    place.set_xlim(low, high)


def _density(values: NDArray[Any], edges: NDArray[Any]) -> NDArray[Any]:
    """Return the share of the values in each bin; those outside count in the whole."""
    counts, _ = np.histogram(values, edges)
    share: NDArray[Any] = counts / max(1, len(values))
    return share


def _points(place: Any, points: NDArray[Any], data: NDArray[Any] | None, colour: Any) -> None:
    place.set_visible(True)
    if data is not None:
        place.scatter(*data[:POINTS].T, s=3, color=MUTED, alpha=0.25, linewidths=0)
    place.scatter(*points[:POINTS].T, s=3, color=colour, linewidths=0)
    frame = points if data is None else data
    place.set(xlim=_range(frame[:, 0]), ylim=_range(frame[:, 1]))


def _range(values: NDArray[Any]) -> tuple[float, float]:
    """Return a range around the middle 99 % of the values: a stray sample must not shrink the picture."""
    known = values[np.isfinite(values)]
    low, high = (float(np.quantile(known, q)) for q in (0.005, 0.995)) if len(known) else (0.0, 0.0)
    reach = 0.62 * (high - low) or max(1e-3, 0.05 * abs(high))
    return (low + high) / 2 - reach, (low + high) / 2 + reach


def _pairs(rows: NDArray[Any]) -> list[list[int]]:
    """Return the pairs of columns with the largest correlation, by absolute value; columns of one value have none."""
    rows = rows[np.isfinite(rows).all(1)].astype(np.float64)
    varied = [column for column in range(rows.shape[1]) if len(rows) and np.ptp(rows[:, column]) > 0]
    if len(varied) < 2:
        return []
    strength = np.abs(np.corrcoef(rows[:, varied], rowvar=False))
    first, second = np.triu_indices(len(varied), 1)
    order = np.argsort(-strength[first, second], kind="stable")[:PAIRS]
    return [[varied[first[n]], varied[second[n]]] for n in order]


def _few(budgets: list[int]) -> list[int]:
    """Return at most four numbers of steps, the fewest and the most among them."""
    places = np.linspace(0, len(budgets) - 1, min(len(budgets), ACROSS)).round().astype(int)
    return [budgets[place] for place in places]


def _colours(budgets: list[int]) -> dict[int, Any]:
    """Return a colour for each number of steps, from few to many."""
    import matplotlib as mpl

    if len(budgets) == 1:
        return {budgets[0]: INK}
    ends = zip(budgets, np.linspace(0.1, 0.85, len(budgets)), strict=True)
    return {n: mpl.colormaps[LADDER_MAP](float(place)) for n, place in ends}
