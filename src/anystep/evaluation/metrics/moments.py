"""Mean and covariance of feature rows, gathered in a stream."""

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
