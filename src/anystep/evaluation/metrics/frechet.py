"""Frechet distance between two Gaussians (Heusel et al. 2017, eq. 6) from the moments of both sides."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystep.evaluation.metrics.base import Kept, Metric
from anystep.evaluation.metrics.moments import Moments


@dataclass(frozen=True)
class Frechet(Metric):
    """Frechet distance between all samples and the whole reference. It falls with the number of samples."""

    title = "Fréchet distance"
    better = "lower"
    distance = True
    usual = frozenset({"picture", "vector"})
    needs = frozenset({"moments"})

    def prepare(self, real: Kept) -> NDArray[np.float64]:
        """Return the square root of the reference's covariance."""
        return matrix_root(real.moments.covariance)

    def score(self, real: Kept, drawn: Kept, prepared: NDArray[np.float64]) -> dict[str, float]:
        """Return the distance."""
        return {"": frechet_distance(real.moments, drawn.moments, prepared)}

    def caution(self, real: Kept, drawn: Kept) -> str | None:
        """Warn of fewer examples than features."""
        count, width = min(real.moments.count, drawn.moments.count), len(real.moments.mean)
        return f"{count} rows for {width} features, so a covariance is not of full rank" if count <= width else None


def frechet_distance(a: Moments, b: Moments, root_a: NDArray[np.float64] | None = None) -> float:
    """Return the Frechet distance of two streams of features, `gaussian_distance` of their moments.

    ``root_a`` is the `matrix_root` of a's covariance, for who compares many with the same.
    Raises ValueError when the numbers of features differ or either side has fewer than 2 rows.
    """
    return gaussian_distance(a.mean, a.covariance, b.mean, b.covariance, root_a)


def gaussian_distance(
    mean_a: NDArray[np.float64],
    cov_a: NDArray[np.float64],
    mean_b: NDArray[np.float64],
    cov_b: NDArray[np.float64],
    root_a: NDArray[np.float64] | None = None,
) -> float:
    """Return ``|mu_a - mu_b|^2 + Tr(S_a + S_b - 2 (S_a S_b)^(1/2))``, the squared 2-Wasserstein distance of Gaussians.

    Means [F], covariances [F, F]. ``S_a S_b`` has the eigenvalues of the symmetric ``S_a^(1/2) S_b S_a^(1/2)``, so
    two `eigh` are enough (one with ``root_a``), and covariances without full rank (fewer rows than features) need no
    offset.
    Raises ValueError when the numbers of features differ.
    """
    if mean_a.shape != mean_b.shape:
        raise ValueError(f"features differ: {len(mean_a)} columns against {len(mean_b)}")
    root = matrix_root(cov_a) if root_a is None else root_a
    product = root @ cov_b @ root
    trace = np.sqrt(_positive(np.linalg.eigvalsh((product + product.T) / 2))).sum()
    shift = mean_a - mean_b
    return float(max(0.0, shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * trace))


def matrix_root(cov: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the symmetric square root of a covariance [F, F]."""
    values, vectors = np.linalg.eigh(cov)
    root: NDArray[np.float64] = (vectors * np.sqrt(_positive(values))) @ vectors.T
    return root


def _positive(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return eigenvalues with rounding noise set to zero: its square root would not be small."""
    noise = values.max(initial=0.0) * len(values) * np.finfo(np.float64).eps
    return np.where(values > noise, values, 0.0)
