"""Frechet distance between the Gaussians of two sets of features (Heusel et al. 2017, eq. 6)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystep.evaluation.features.base import Array
from anystep.evaluation.metrics.base import Kept, Metric


@dataclass(frozen=True)
class Frechet(Metric):
    """Frechet distance between all samples and the whole reference. It falls with the number of samples."""

    title = "Fréchet distance"
    better = "lower"
    distance = True
    usual = frozenset({"picture", "vector"})
    needs = frozenset({"moments"})

    def prepare(self, real: Kept) -> Array:
        """Return the factor of the reference's covariance."""
        return factor(real.moments.covariance)

    def score(self, real: Kept, drawn: Kept, prepared: Array) -> dict[str, float]:
        """Return the distance."""
        a, b = real.moments, drawn.moments
        return {"": frechet_distance(a.mean, a.covariance, b.mean, b.covariance, prepared)}

    def caution(self, real: Kept, drawn: Kept) -> str | None:
        """Warn of fewer examples than features."""
        count, width = min(real.moments.count, drawn.moments.count), len(real.moments.mean)
        return f"{count} rows for {width} features, so a covariance is not of full rank" if count <= width else None


#: samples below which the bias of a FID is larger than most differences of interest
FEW = 10_000


@dataclass(frozen=True)
class Fid(Frechet):
    """Frechet distance of Inception features; of spatial ones it is sFID (Nash et al. 2021)."""

    title = "FID"

    def caution(self, real: Kept, drawn: Kept) -> str | None:
        """Warn of few samples too."""
        count = min(real.moments.count, drawn.moments.count)
        few = f"of {count:,} rows, and too high for fewer than {FEW:,}" if count < FEW else None
        return "; ".join(filter(None, (few, super().caution(real, drawn)))) or None


def frechet_distance(mean_a: Array, cov_a: Array, mean_b: Array, cov_b: Array, factor_a: Array | None = None) -> float:
    """Return ``|mu_a - mu_b|^2 + Tr(S_a + S_b - 2 (S_a S_b)^(1/2))``, the squared 2-Wasserstein distance of Gaussians.

    Means [F], covariances [F, F]; ``factor_a`` is the `factor` L of ``cov_a`` where it is known. ``S_a S_b`` has the
    eigenvalues of the symmetric ``L S_b L'``, and zeros: two `eigh` are enough, and covariances without full rank
    (fewer examples than features) need no offset and less time.
    """
    left = factor(cov_a) if factor_a is None else factor_a
    product = left @ cov_b @ left.T
    trace = np.sqrt(_without_noise(np.linalg.eigvalsh((product + product.T) / 2))).sum()
    shift = mean_a - mean_b
    return float(max(0.0, shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * trace))


def factor(cov: Array) -> Array:
    """Return L, [rank, F], with ``L' L`` the covariance [F, F]: its principal axes by their deviations."""
    values, vectors = np.linalg.eigh(cov)
    values = _without_noise(values)
    axes: Array = (vectors[:, values > 0] * np.sqrt(values[values > 0])).T
    return axes


def _without_noise(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return eigenvalues with rounding noise set to zero: its square root would not be small."""
    noise = values.max(initial=0.0) * len(values) * np.finfo(np.float64).eps
    return np.where(values > noise, values, 0.0)
