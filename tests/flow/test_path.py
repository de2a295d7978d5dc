"""The straight path, and its ends by its velocity."""

import pytest
import torch

from anystep.flow.path import advance, data_from_velocity, expand, interpolate, velocity, velocity_to_data


@pytest.fixture
def ends() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(2, 16, 3, 4, 4, generator=generator, dtype=torch.float64)
    return x0, x1, torch.rand(16, generator=generator, dtype=torch.float64)


def test_the_velocity_points_back_to_noise_and_on_to_data(ends) -> None:
    x0, x1, t = ends
    x_t, v = interpolate(x0, x1, t), velocity(x0, x1)
    torch.testing.assert_close(x_t - expand(t, x_t) * v, x0)
    torch.testing.assert_close(data_from_velocity(x_t, t, v), x1)


def test_the_ends_of_the_path_are_noise_and_data_with_sigma_min_of_noise_left(ends) -> None:
    x0, x1, t = ends
    zero, one = torch.zeros_like(t), torch.ones_like(t)
    assert torch.equal(interpolate(x0, x1, zero, 0.3), x0)
    assert torch.equal(interpolate(x0, x1, one), x1)
    torch.testing.assert_close(interpolate(x0, x1, one, 0.3), x1 + 0.3 * x0)


@pytest.mark.parametrize("sigma_min", [0.0, 1e-5, 0.3])
def test_advancing_along_the_velocity_stays_on_the_path(ends, sigma_min: float) -> None:
    """x_{t+d} = x_t + d v, exactly: the path is straight. So v is its derivative, with sigma_min too."""
    x0, x1, t = ends
    d = (1 - t) * 0.7
    there = advance(interpolate(x0, x1, t, sigma_min), d, velocity(x0, x1, sigma_min))
    torch.testing.assert_close(there, interpolate(x0, x1, t + d, sigma_min))


def test_the_velocity_to_an_end_leads_there(ends) -> None:
    """It undoes `data_from_velocity`; on the straight path it is the path's own, everywhere but at t = 1."""
    x0, x1, t = ends
    x_t = interpolate(x0, x1, t)
    torch.testing.assert_close(velocity_to_data(x_t, t, x1), velocity(x0, x1))
    torch.testing.assert_close(data_from_velocity(x0, t, velocity_to_data(x0, t, x1)), x1)
