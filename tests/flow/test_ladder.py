"""Distributions of t, and step-size levels."""

import math

import pytest
import torch
from scipy import stats

from anystep.flow.ladder import Ladder, flow_time


@pytest.fixture(scope="module")
def uniform() -> torch.Tensor:
    return torch.rand(200_000, generator=torch.Generator().manual_seed(0))


def test_discrete_times_are_every_multiple_of_the_smallest_step_below_one(uniform) -> None:
    t = flow_time(uniform, "discrete", 16)
    values, counts = t.unique(return_counts=True)
    assert values.tolist() == [n / 16 for n in range(16)]
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    nearly_one = torch.tensor([1 - 2**-24])  # the largest float32 that torch.rand returns
    assert float(flow_time(nearly_one, "discrete", 128)) == 127 / 128


@pytest.mark.parametrize(
    ("distribution", "cdf"),
    [("uniform", lambda t: t), ("logit_normal", lambda t: stats.norm.cdf([math.log(x / (1 - x)) for x in t]))],
)
def test_continuous_times_have_their_distribution(uniform, distribution: str, cdf) -> None:
    assert stats.kstest(flow_time(uniform, distribution, 128).numpy(), cdf).pvalue > 1e-3


@pytest.mark.parametrize("distribution", ["discrete", "uniform", "logit_normal"])
def test_times_are_finite_and_below_one_at_the_ends_of_the_draw(distribution: str) -> None:
    t = flow_time(torch.tensor([0.0, 1 - 2**-24]), distribution, 128)
    assert float(t.min()) >= 0 and float(t.max()) < 1


def test_d_zero_is_encoded_as_the_smallest_step() -> None:
    for M in (2, 32, 128):
        d = torch.tensor([0.0, 1 / M, 0.5, 1.0])
        assert Ladder(M).index(d).tolist() == [math.log2(M), math.log2(M), 1.0, 0.0]


def test_two_half_steps_of_a_level_are_one_of_the_next_and_the_last_reach_one() -> None:
    ladder = Ladder(64)
    half = ladder.half_step(torch.arange(ladder.levels))
    assert torch.equal(2 * half[:-1], half[1:])
    assert (float(half[0]), float(half[-1])) == (1 / 64, 1 / 2)


@pytest.mark.parametrize("M", [0, 1, 3, 100, -2])
def test_a_ladder_has_a_power_of_two_steps(M: int) -> None:
    with pytest.raises(ValueError, match=f"M must be a power of two of at least 2, got {M}"):
        Ladder(M)
