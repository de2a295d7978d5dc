"""Density and coverage are what their definitions say, and an odd real example changes them little."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from anystep.evaluation.features.base import FeatureSpace
from anystep.evaluation.metrics import METRICS
from anystep.evaluation.metrics.base import Kept


def side(rows: np.ndarray) -> Kept:
    return Kept(FeatureSpace("columns", lambda _: {}), frozenset({"rows"}), len(rows), rows=rows)


def measured(real: np.ndarray, drawn: np.ndarray) -> dict[str, float]:
    names = ("density", "coverage", "precision", "recall")
    return {name: METRICS[name].score(side(real), side(drawn), None)[""] for name in names}


def by_neighbours(real: np.ndarray, drawn: np.ndarray, k: int = 5) -> tuple[float, float]:
    """By scikit-learn's neighbours; the first of a real example is itself."""
    radius = NearestNeighbors(n_neighbors=k + 1).fit(real).kneighbors(real)[0][:, -1]
    inside = np.linalg.norm(drawn[:, None] - real, axis=2) <= radius
    return inside.sum() / (k * len(drawn)), inside.any(0).mean()


@pytest.mark.parametrize(("width", "scale"), [(2, 0.9), (300, 1.03)])
def test_they_are_the_definitions(width, scale):
    random = np.random.default_rng(0)
    real, drawn = random.normal(size=(80, width)), scale * random.normal(size=(80, width)) + 0.05
    found = measured(real, drawn)
    density, coverage = by_neighbours(real, drawn)
    assert (found["density"], found["coverage"]) == pytest.approx((density, coverage), abs=1e-12)
    assert 0 < coverage < 1


def test_equal_sets_have_all_of_both():
    rows = np.random.default_rng(0).normal(size=(60, 3))
    found = measured(rows, rows)
    assert found["coverage"] == 1
    assert found["density"] == pytest.approx((5 + 1) / 5, abs=0.3)  # its own ball, and those of five neighbours or so


def test_one_odd_example_gives_precision_but_little_density():
    """Its ball reaches over all samples (Naeem et al. 2020, figure 1)."""
    random = np.random.default_rng(0)
    real = np.concatenate([random.normal(size=(99, 2)), [[60.0, 0.0]]])
    drawn = np.array([30.0, 0.0]) + random.normal(size=(100, 2))
    found = measured(real, drawn)
    assert found["precision"] == 1
    assert found["density"] == pytest.approx(1 / 5)
    assert found["coverage"] == pytest.approx(1 / 100)
