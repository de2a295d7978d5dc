"""Points in the plane with many modes, where the errors of a one-step sampler are visible."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from anystep.core.fields import check_value
from anystep.data.base import Dataset, Split
from anystep.data.source import Source


@dataclass(frozen=True)
class PlanarSource(Source):
    """Points drawn from a known distribution; the held-out points are as many others from it."""

    num: Annotated[int, Ge(1)] = 20_000
    """Number of points."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the points."""

    def open(self, split: Split = "train") -> Dataset:
        """Return ``num`` points, float32 [num, 2]."""
        check_value("split", split, Split)
        points, mode = self.draw(np.random.default_rng([self.seed, int(split == "heldout")]))
        return Dataset.from_arrays(self.name, points.astype(np.float32), mode)

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int64] | None]:
        """Return points [num, 2] and the mode of each, or None without labels."""


@dataclass(frozen=True)
class TwoMoons(PlanarSource):
    """Two interleaved half circles of radius 2, with normal noise of standard deviation 0.2."""

    name: ClassVar[str] = "two_moons"

    labels: bool = False
    """Use the moon, 0 or 1, as the label."""

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int64] | None]:
        """Draw the moon, the angle and the noise: scikit-learn's moons, scaled by 2 and centred as in FFJORD."""
        moon = rng.integers(2, size=self.num)
        angle = rng.uniform(0, np.pi, self.num)
        upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        points = np.where(moon[:, None] == 0, upper, [1, 0.5] - upper)
        points = 2 * (points + rng.normal(0, 0.1, points.shape)) - [1, 0.5]
        return points, moon if self.labels else None


@dataclass(frozen=True)
class EightGaussians(PlanarSource):
    """Eight normal clusters of standard deviation 0.1, evenly spaced on a circle of radius 2."""

    name: ClassVar[str] = "eight_gaussians"

    labels: bool = False
    """Use the cluster, 0 to 7 counter-clockwise from (2, 0), as the label."""

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int64] | None]:
        """Draw the cluster, then the distance from its centre."""
        cluster = rng.integers(8, size=self.num)
        angle = cluster * (np.pi / 4)
        points = 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return points + rng.normal(0, 0.1, points.shape), cluster if self.labels else None


@dataclass(frozen=True)
class Checkerboard(PlanarSource):
    """The dark squares of a 4x4 board on [-4, 4]^2, uniformly filled."""

    name: ClassVar[str] = "checkerboard"

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int64] | None]:
        """Draw the column, one of its two dark squares, and the position within it."""
        column = rng.integers(4, size=self.num)
        row = 2 * rng.integers(2, size=self.num) + column % 2
        corner = 2.0 * np.stack([column, row], axis=1) - 4
        return corner + rng.uniform(0, 2, corner.shape), None
