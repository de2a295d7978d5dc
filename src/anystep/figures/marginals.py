"""Vectors with any number of columns: a histogram of each column, and pairs of columns as points."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anystep.figures.canvas import MUTED, colour_scale, legend, panels, title
from anystep.figures.methods import steps_name
from anystep.figures.scatter import draw_points, middle_range

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: panels in a row
ACROSS = 4
#: largest number of columns with a histogram, and of pairs of columns with a row of points
COLUMNS, PAIRS = 16, 3
BINS, POINTS = 40, 1000


def marginals(samples: Mapping[int, NDArray[Any]], data: NDArray[Any] | None = None) -> "Figure":
    """Return histograms of the first 16 columns, and the most correlated pairs of columns as points.

    ``samples``: vectors [n, D] by number of steps; ``data`` [m, D] is drawn in grey. Correlations are those of the
    data, or without it of the samples in most steps. Points are drawn for at most four numbers of steps. Raises
    ValueError without samples, or if they are not [n, D].
    """
    if not samples:
        raise ValueError("nothing to draw: no samples")
    vectors = [*samples.values(), *([] if data is None else [data])]
    width = vectors[0].shape[-1]
    if any(array.ndim != 2 or array.shape[1] != width for array in vectors):
        raise ValueError(f"vectors must have shape [n, D], got {[list(array.shape) for array in vectors]}")
    steps = sorted(samples)
    colours = dict(zip(steps, colour_scale(len(steps)), strict=True))
    reference = samples[steps[-1]] if data is None else data
    shown, pairs = min(width, COLUMNS), _correlated_pairs(reference)
    few = [steps[round(n)] for n in np.linspace(0, len(steps) - 1, min(len(steps), ACROSS))]
    scattered = [(pair, n) for pair in pairs for n in few]
    across = len(few) if len(few) > 1 else ACROSS
    first = -(-shown // ACROSS)
    figure, axes = panels(first + -(-len(scattered) // across), ACROSS, width=10.5, height=2.3)
    for panel in axes.flat:
        panel.set_visible(False)
    ends = list(zip(*middle_range(reference), strict=True))
    for column, panel in zip(range(shown), axes.flat, strict=False):
        panel.set_visible(True)
        panel.set(yticks=[], xlim=ends[column])
        edges = np.linspace(*ends[column], BINS + 1)
        if data is not None:
            panel.stairs(_fractions(data[:, column], edges), edges, fill=True, color=MUTED, alpha=0.3, label="data")
        for n in steps:
            fractions = _fractions(samples[n][:, column], edges)
            panel.stairs(fractions, edges, color=colours[n], linewidth=1.3, label=steps_name(n))
        title(panel, f"column {column}", f"of {width}" if column == shown - 1 < width - 1 else "")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    legend(figure, handles=handles, labels=labels, loc="outside upper left", ncols=len(labels))
    for (pair, n), panel in zip(scattered, axes[first:, :across].flat, strict=False):
        panel.set_visible(True)
        draw_points(panel, samples[n][:, pair], None if data is None else data[:, pair], colours[n], POINTS)
        panel.set(xlim=ends[pair[0]], ylim=ends[pair[1]], xlabel=f"column {pair[0]}", ylabel=f"column {pair[1]}")
        title(panel, steps_name(n))
    return figure


def _fractions(values: NDArray[Any], edges: NDArray[Any]) -> NDArray[Any]:
    """Return the fraction of all values that is in each bin."""
    counts, _ = np.histogram(values, edges)
    return np.asarray(counts / len(values))


def _correlated_pairs(vectors: NDArray[Any]) -> list[list[int]]:
    """Return the pairs of columns with the largest absolute correlations; constant columns have none."""
    finite = vectors[np.isfinite(vectors).all(1)].astype(np.float64)
    varied = [column for column in range(finite.shape[1]) if len(finite) and np.ptp(finite[:, column]) > 0]
    if len(varied) < 2:
        return []
    strength = np.abs(np.corrcoef(finite[:, varied], rowvar=False))
    first, second = np.triu_indices(len(varied), 1)
    order = np.argsort(-strength[first, second], kind="stable")[:PAIRS]
    return [[varied[first[n]], varied[second[n]]] for n in order]
