"""The Frechet distance: closed forms, scipy's matrix square root, and the authors' own numbers."""

from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import sqrtm

from anystep.evaluation.metrics.base import Moments
from anystep.evaluation.metrics.frechet import frechet_distance

FIXTURE = Path(__file__).parent / "fixtures" / "fid.npz"


def spread(seed, size):
    a = np.random.default_rng(seed).standard_normal((size, size))
    return a @ a.T


def moments(rows):
    found = Moments()
    found.update(rows)
    return found.mean, found.covariance


def by_scipy(mean_a, cov_a, mean_b, cov_b):
    """The formula as it is printed, with a general matrix square root."""
    root = np.asarray(sqrtm(cov_a @ cov_b)).real
    return ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)


def test_a_set_is_at_no_distance_from_itself():
    rows = np.random.default_rng(0).standard_normal((50, 7)) * 100
    assert frechet_distance(*moments(rows), *moments(rows)) < 1e-9


def test_equal_covariances_leave_the_squared_distance_of_the_means():
    cov = spread(0, 5)
    assert frechet_distance(np.zeros(5), cov, np.full(5, 2.0), cov) == pytest.approx(20)


def test_commuting_covariances_leave_differences_of_standard_deviations():
    """For diagonal covariances Tr(...) is the sum of (sigma_a - sigma_b)^2."""
    a, b = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5, 1.5])
    zero = np.zeros(3)
    expected = ((a - b) ** 2).sum()
    assert frechet_distance(zero, np.diag(a**2), zero, np.diag(b**2)) == pytest.approx(expected)


def test_it_is_symmetric_and_agrees_with_scipy_for_covariances_that_do_not_commute():
    mean_a, mean_b, cov_a, cov_b = np.ones(8), np.zeros(8), spread(1, 8), spread(2, 8)
    found = frechet_distance(mean_a, cov_a, mean_b, cov_b)
    assert found == pytest.approx(by_scipy(mean_a, cov_a, mean_b, cov_b), rel=1e-10)
    assert found == pytest.approx(frechet_distance(mean_b, cov_b, mean_a, cov_a), rel=1e-10)


def test_it_is_symmetric_without_full_rank_too():
    """Six and four rows of eight features, and rows that are all the same, whose covariance is zero."""
    rng = np.random.default_rng(4)
    a, b, same = moments(rng.standard_normal((6, 8))), moments(rng.standard_normal((4, 8))), moments(np.ones((5, 8)))
    for one, other in ((a, b), (a, same), (same, b)):
        assert frechet_distance(*one, *other) == pytest.approx(frechet_distance(*other, *one), rel=1e-10)
    assert frechet_distance(*same, *a) == pytest.approx(((a[0] - 1) ** 2).sum() + np.trace(a[1]), rel=1e-12)


def test_large_samples_of_known_gaussians_reach_the_closed_form():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((200_000, 2)), rng.standard_normal((200_000, 2)) * [2, 3] + [1, -1]
    assert frechet_distance(*moments(a), *moments(b)) == pytest.approx(2 + 1 + 4, rel=0.01)


@pytest.mark.parametrize(("other", "value"), [("acts2", "value"), ("acts3", "value_rank_deficient")])
def test_the_authors_value(other, value):
    """Theirs adds 1e-6 I inside the root only; with the same offset ours is theirs to float32."""
    z = np.load(FIXTURE)
    pairs = {"acts2": ("acts1", "acts2"), "acts3": ("acts2", "acts3")}
    (mean_a, cov_a), (mean_b, cov_b) = (moments(z[name].astype(np.float64)) for name in pairs[other])
    offset = 1e-6 * np.eye(16)
    found = frechet_distance(mean_a, cov_a + offset, mean_b, cov_b + offset) - 2 * 16 * 1e-6
    assert found == pytest.approx(float(z[value]), rel=2e-5)


def test_without_full_rank_no_offset_is_needed():
    """8 rows in 16 dimensions. A small offset's effect goes to zero as its root, and ours is the limit."""
    z = np.load(FIXTURE)
    (mean_a, cov_a), (mean_b, cov_b) = (moments(z[name].astype(np.float64)) for name in ("acts2", "acts3"))
    exact = frechet_distance(mean_a, cov_a, mean_b, cov_b)
    gaps = []
    for size in (1e-6, 1e-8, 1e-10):
        offset = size * np.eye(16)
        gaps.append(abs(frechet_distance(mean_a, cov_a + offset, mean_b, cov_b + offset) - exact))
    assert gaps[0] < 0.03
    assert gaps[1] == pytest.approx(gaps[0] / 10, rel=0.1)
    assert gaps[2] == pytest.approx(gaps[0] / 100, rel=0.1)


@pytest.mark.parametrize("cuts", [(), (1,), (3, 4, 90)])
def test_a_stream_equals_one_batch_far_from_zero(cuts):
    """A million standard deviations from zero, where a sum of squares would keep no digit of the covariance."""
    rows = np.random.default_rng(0).standard_normal((100, 4)) @ spread(3, 4) + 1e6
    stream = Moments()
    for part in np.split(rows, cuts):
        stream.update(part)
    np.testing.assert_allclose(stream.mean, rows.mean(0), rtol=1e-14)
    np.testing.assert_allclose(stream.covariance, np.cov(rows, rowvar=False), rtol=1e-7)
