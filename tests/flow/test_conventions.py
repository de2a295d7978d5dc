"""Other papers' conventions and ours."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anystep.flow.conventions import (
    VP_START,
    from_vp,
    time_from_sigma,
    to_vp,
    velocity_from_noise,
    vp_alpha_bar,
    vp_scale,
    vp_time,
    vp_times,
)
from anystep.flow.path import interpolate, velocity

times = st.floats(VP_START, 1)


def ends(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x0, x1 = torch.randn(2, 1, 6, generator=generator, dtype=torch.float64)
    return x0, x1


def at(t: float) -> Tensor:
    return torch.tensor([t], dtype=torch.float64)


def test_levels_are_those_of_ddpm() -> None:
    """A loop over betas in Python's own floats; no level is data or pure noise."""
    left, expected = 1.0, []
    for i in range(1000):
        left *= 1 - (1e-4 + (0.02 - 1e-4) * i / 999)
        expected.append(left)
    np.testing.assert_allclose(vp_alpha_bar().numpy(), expected, rtol=1e-12)
    assert math.sqrt(expected[-1]) == pytest.approx(0.00635, abs=5e-6)
    assert pytest.approx(0.00631, abs=5e-6) == VP_START
    assert bool((vp_times().diff() < 0).all()) and float(vp_times()[0]) < vp_time(-1) == 1.0


def test_scale_and_coefficients_are_functions_of_time_alone() -> None:
    """a = t (a + b) and b = (1 - t)(a + b) have a^2 + b^2 = 1, and a^2 is abar again."""
    t, scale = vp_times(), vp_scale(vp_times())
    a, b = t * scale, (1 - t) * scale
    torch.testing.assert_close(a.square(), vp_alpha_bar(), rtol=1e-12, atol=0)
    torch.testing.assert_close(b.square(), 1 - vp_alpha_bar(), rtol=1e-12, atol=1e-15)


@settings(max_examples=50, deadline=None)
@given(t=st.floats(0, 1), seed=st.integers(0, 99))
def test_the_variance_preserving_input_there_and_back(t: float, seed: int) -> None:
    x0, x1 = ends(seed)
    x_t = interpolate(x0, x1, at(t))
    a, b = t / math.hypot(t, 1 - t), (1 - t) / math.hypot(t, 1 - t)
    torch.testing.assert_close(to_vp(x_t, at(t)), a * x1 + b * x0, rtol=0, atol=1e-12)
    torch.testing.assert_close(from_vp(to_vp(x_t, at(t)), at(t)), x_t, rtol=0, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(t=times, seed=st.integers(0, 99))
def test_noise_and_velocity_there_and_back(t: float, seed: int) -> None:
    """For any predicted noise, right or wrong; the right one gives the velocity of the path."""
    x0, x1 = ends(seed)
    x_t, noise = interpolate(x0, x1, at(t)), torch.sin(3 * x0)
    v = velocity_from_noise(x_t, at(t), noise)
    torch.testing.assert_close(x_t - t * v, noise, rtol=0, atol=1e-12)
    torch.testing.assert_close(velocity_from_noise(x_t, at(t), x0), velocity(x0, x1), rtol=0, atol=1e-11)


def test_times_before_the_first_level_give_a_finite_velocity() -> None:
    x0, x1 = ends(0)
    at_start = velocity_from_noise(x0, at(VP_START), x1)
    assert torch.equal(velocity_from_noise(x0, at(0.0), x1), at_start)


def test_rounding_of_float32_makes_an_error_below_1e_4_at_the_first_level() -> None:
    """1 / t = 158 multiplies what rounding x_t and the noise loses; an exact noise, 10^5 values within 5 deviations."""
    generator = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(2, 100, 1000, generator=generator)
    t = torch.full((100,), VP_START)
    error = velocity_from_noise(interpolate(x0, x1, t), t, x0) - velocity(x0, x1)
    assert 1e-6 < float(error.square().mean().sqrt()) < 1e-5
    assert float(error.abs().max()) < 1e-4


@given(sigma=st.floats(1e-3, 1e3))
def test_time_of_a_noise_level_has_its_ratio_of_noise_to_data(sigma: float) -> None:
    t, (x0, x1) = time_from_sigma(at(sigma)), ends(0)
    torch.testing.assert_close(interpolate(x0, x1, t) / t, x1 + sigma * x0, rtol=1e-12, atol=1e-12)
