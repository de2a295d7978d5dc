"""Frechet distance between two Gaussians (Heusel et al. 2017, eq. 6) from moments that are gathered in a stream."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Moments:
    """Mean and covariance of feature rows, in float64, batch by batch.

    Batches are joined with the pairwise update of Chan, Golub and LeVeque (1979), which keeps its precision however
    far the mean lies from zero.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: NDArray[np.float64] = np.zeros(0)
        self._scatter: NDArray[np.float64] = np.zeros((0, 0))

    @classmethod
    def of(cls, features: ArrayLike) -> "Moments":
        """Return the moments of one array [n, F]."""
        moments = cls()
        moments.update(features)
        return moments

    def update(self, features: ArrayLike) -> None:
        """Add rows [n, F]. Raises ValueError for another number of axes or of features, or for values not finite."""
        rows = np.asarray(features, dtype=np.float64)
        if rows.ndim != 2:
            raise ValueError(f"features must be rows [n, F], got shape {rows.shape}")
        if not np.isfinite(rows).all():
            bad = int((~np.isfinite(rows)).any(1).sum())
            raise ValueError(f"features must be finite, but {bad} of {len(rows)} rows are not")
        if len(rows) == 0:
            return
        mean = rows.mean(0)
        centred = rows - mean
        self._join(len(rows), mean, centred.T @ centred)

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of both streams together; neither is changed."""
        both = Moments()
        for part in (self, other):
            if part.count:
                both._join(part.count, part._mean, part._scatter.copy())
        return both

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean [F]. Raises ValueError before the first row."""
        if self.count == 0:
            raise ValueError("a mean needs at least 1 row, got 0")
        return self._mean

    @property
    def covariance(self) -> NDArray[np.float64]:
        """The unbiased covariance [F, F] (divided by n - 1). Raises ValueError for fewer than 2 rows."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 rows, got {self.count}")
        return self._scatter / (self.count - 1)

    def _join(self, count: int, mean: NDArray[np.float64], scatter: NDArray[np.float64]) -> None:
        """Add a part in place; its scatter [F, F], which may be large, is ours from now on."""
        if self.count == 0:
            self.count, self._mean, self._scatter = count, mean, scatter
            return
        if mean.shape != self._mean.shape:
            raise ValueError(f"features must have {len(self._mean)} columns as before, got {len(mean)}")
        total = self.count + count
        shift = mean - self._mean
        self._mean = self._mean + shift * (count / total)
        self._scatter += scatter
        np.multiply.outer(shift, shift, out=scatter)
        scatter *= self.count * count / total
        self._scatter += scatter
        self.count = total


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
