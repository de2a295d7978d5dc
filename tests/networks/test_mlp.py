"""Facts about the MLP for vectors."""

import pytest
import torch

from anystep.flow.condition import UNCONDITIONAL, class_labels
from anystep.networks import MLPConfig


def test_first_velocity_is_exactly_zero() -> None:
    network = MLPConfig().build((2,), class_labels(4))
    assert not network(torch.randn(5, 2), torch.rand(5), torch.rand(5), torch.arange(5)).any()


def test_condition_moves_the_velocity() -> None:
    torch.manual_seed(0)
    network = MLPConfig(hidden=32, depth=1).build((3,), class_labels(4))
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn_like(p) * 0.2)
    x, t, d, label = torch.randn(3, 3), torch.full((3,), 0.25), torch.zeros(3), torch.zeros(3, dtype=torch.long)
    at = network(x, t, d, label)
    for other in ((x, t + 0.5, d, label), (x, t, d + 0.5, label), (x, t, d, label + 1), (x, t, d, None)):
        assert not torch.allclose(network(*other), at, atol=1e-3)
    torch.testing.assert_close(network(x, t, d + 1 / 128, label), at)


def test_learns_a_sharp_one_step_map() -> None:
    """The one-step map of a two-point data set sends each half plane to its point: discontinuous, yet soon learned."""
    torch.manual_seed(0)
    network = MLPConfig(hidden=64, depth=2).build((2,), UNCONDITIONAL)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    zeros, ones = torch.zeros(256), torch.ones(256)
    for _ in range(300):
        x = torch.randn(256, 2)
        point = torch.stack([x[:, 0].sign() * 2, torch.zeros(256)], dim=1)
        loss = (network(x, zeros, ones) - (point - x)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = torch.randn(256, 2)
    error = (x + network(x, zeros, ones) - torch.stack([x[:, 0].sign() * 2, zeros], dim=1)).norm(dim=1)
    assert (error < 0.2).float().mean() > 0.93  # the rest lies beside the edge


@pytest.mark.parametrize("changes", [{"hidden": 0}, {"depth": 0}, {"step_encoding": "square"}])
def test_invalid_configurations_name_the_field(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        MLPConfig(**changes)  # type: ignore[arg-type]


def test_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"vectors of shape \(D,\), got \(3, 8, 8\)"):
        MLPConfig().build((3, 8, 8), UNCONDITIONAL)
