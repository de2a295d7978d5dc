"""Precision, recall, energy distance, class accuracy: limit cases, brute force, closed forms."""

import numpy as np
import pytest
from scipy.stats import energy_distance as scipy_energy
from sklearn.datasets import load_digits

from anystep.evaluation.features.base import FeatureSpace
from anystep.evaluation.metrics import distances
from anystep.evaluation.metrics.accuracy import Accuracy
from anystep.evaluation.metrics.base import Kept
from anystep.evaluation.metrics.energy import energy_distance
from anystep.evaluation.metrics.precision_recall import Precision, Recall

rng = np.random.default_rng


def side(features, classes=None, heldout=None):
    """One side of a comparison: its features, and the classes of the examples."""
    return Kept(
        FeatureSpace("any", lambda raw: {}),
        frozenset(),
        len(features),
        rows=features,
        conditions=classes,
        heldout=heldout,
    )


def precision_and_recall(real, fake, k=3):
    return tuple(metric(k=k).score(side(real), side(fake), None)[""] for metric in (Precision, Recall))


def brute_force(real, fake, k):
    """Kynkaanniemi et al., eq. 1 and 2, point by point."""

    def covered(points, centres):
        radii = [sorted(np.linalg.norm(centres - c, axis=1))[k] for c in centres]
        return np.mean([any(np.linalg.norm(p - c) <= r for c, r in zip(centres, radii, strict=True)) for p in points])

    return covered(fake, real), covered(real, fake)


def test_a_set_covers_itself():
    x = rng(0).standard_normal((200, 64))
    assert precision_and_recall(x, x.copy()) == (1, 1)


def test_sets_apart_cover_nothing_of_each_other():
    x = rng(0).standard_normal((100, 5))
    assert precision_and_recall(x, x + 100) == (0, 0)


def test_a_dropped_mode_costs_recall_and_no_precision():
    """The second mode is the same points again, 50 away."""
    a = rng(0).standard_normal((300, 2))
    assert precision_and_recall(np.concatenate([a, a + 50]), np.concatenate([a, a])) == (1, 0.5)


def test_class_means_are_precise_and_recall_nothing():
    x = rng(0).standard_normal((400, 16))
    means = np.zeros((400, 16)) + 1e-3 * rng(1).standard_normal((400, 16))
    precision, recall = precision_and_recall(x, means)
    assert precision == 1
    assert recall < 0.01


@pytest.mark.parametrize("features", [3, 300])
def test_slabs_give_the_brute_force_answer(features, monkeypatch):
    """Both ways of making distances (directly, and by a product above 256 features), in slabs of a few rows."""
    monkeypatch.setattr(distances, "SLAB", 200)
    real = rng(0).standard_normal((45, features)) + 5
    fake = rng(1).standard_normal((45, features)) * 1.1 + 5.05
    assert precision_and_recall(real, fake, k=4) == pytest.approx(brute_force(real, fake, 4), abs=1e-12)


def test_a_side_with_more_examples_is_cut_to_the_others_number():
    """100 examples of each: the 50 further real ones, which no sample is near, do not count."""
    x = rng(0).standard_normal((100, 5))
    assert precision_and_recall(np.concatenate([x, x[:50] + 100]), x.copy()) == (1, 1)


def test_energy_of_two_points_is_twice_their_distance():
    assert energy_distance([[0.0, 0.0]], [[3.0, 4.0]]) == pytest.approx(10)


def test_energy_agrees_with_scipy_in_one_dimension():
    x, y = rng(0).standard_normal(300), rng(1).standard_normal(200) * 2 + 1
    expected = scipy_energy(x, y) ** 2  # scipy returns the root
    assert energy_distance(x[:, None], y[:, None]) == pytest.approx(expected, rel=1e-10)


def test_energy_of_shifted_uniforms_is_the_closed_form():
    """On [0, 1] and [1, 2]: 2 E|X - Y| = 2, E|X - X'| = 1/3 twice, so 4/3; a grid of n points is within 1/n."""
    grid = (np.arange(1000)[:, None] + 0.5) / 1000
    assert energy_distance(grid, grid + 1) == pytest.approx(4 / 3, abs=1e-5)


def test_equal_sets_have_no_energy():
    x = rng(0).standard_normal((150, 2))
    assert energy_distance(x, x.copy()) < 1e-12


def test_the_classifier_knows_digits_and_takes_a_class_mean_for_one_of_it():
    """Why accuracy is never alone: ten class means, each repeated, score 1.0."""
    digits = load_digits()
    x, y = digits.data, digits.target
    means = np.stack([x[y == c].mean(0) for c in range(10)])
    labels = np.arange(100) % 10
    real = side(x[1::5], y[1::5], heldout=side(x[::5], y[::5]))
    prepared, again = (Accuracy().prepare(real) for _ in range(2))
    assert Accuracy().score(real, side(means[labels], labels), prepared)[""] == 1.0
    found = Accuracy().score(real, side(means[labels], (labels + 1) % 10), prepared)
    assert found[""] == 0
    assert found["real"] == prepared[1] == again[1] > 0.95


def test_one_class_cannot_be_told_from_others():
    one = side(np.zeros((4, 2)), np.zeros(4, np.int64))
    with pytest.raises(ValueError, match="number of classes has to be greater than one; got 1 class"):
        Accuracy().prepare(side(np.zeros((4, 2)), np.zeros(4, np.int64), heldout=one))
