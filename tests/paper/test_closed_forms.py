"""Cases whose flow is known: a linear field, and Gaussian data."""

import math

import pytest
import torch
from torch import Tensor

from anystep.core.random import Keys
from anystep.flow.condition import UNCONDITIONAL
from anystep.flow.sampling import sample
from anystep.networks import MLPConfig
from anystep.objectives import Batch, Draw, Networks, PhaseProgress, Shortcut
from anystep.training.ema import Ema

M = 128
A = torch.tensor([[-0.4, 1.1, 0.0], [-1.1, -0.2, 0.3], [0.0, 0.5, 0.6]], dtype=torch.float64)


class LinearField:
    """dx/dt = A x, whose exact step is x(t + d) = exp(A d) x, so s(x, t, d) = (exp(A d) - I)/d x."""

    def __init__(self, finest: float) -> None:
        self.finest = finest  # what d = 0 means: the average over this step, or (0) the true derivative

    def __call__(
        self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance: Tensor | None = None
    ) -> Tensor:
        rows = []
        for row, step in zip(x, d.tolist(), strict=True):
            h = max(step, self.finest)
            average = A if h == 0 else (torch.linalg.matrix_exp(A * h) - torch.eye(3, dtype=A.dtype)) / h
            rows.append(average @ row)
        return torch.stack(rows)


def gaussian_batch(rows: int) -> tuple[Batch, Draw]:
    generator = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(2, rows, 3, generator=generator, dtype=torch.float64)
    return Batch(x1, x0), Draw(Keys(0), 0, rows, slice(0, rows))


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 32, 64])
def test_any_number_of_exact_steps_is_the_flow_of_a_linear_field(steps: int) -> None:
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    exact = x @ torch.linalg.matrix_exp(A).T
    torch.testing.assert_close(sample(LinearField(0), x, steps=steps), exact, rtol=0, atol=1e-9)


def test_the_exact_shortcut_has_no_self_consistency_loss() -> None:
    batch, draw = gaussian_batch(64)
    network = LinearField(1 / M)  # d = 0 is the step 1/M, as in the log2 encoding
    losses = Shortcut(share=1.0).loss(Networks(network, network), batch, draw, PhaseProgress(0, 1))
    assert set(losses.tag.tolist()) == set(range(1, 8))
    assert float(losses.rows.max()) < 1e-13


def test_with_the_true_derivative_only_the_finest_level_errs_as_eulers_step_does() -> None:
    """Two Euler steps of 1/M against the exact step 2/M differ by A^2 x / (2M) to first order."""
    batch, draw = gaussian_batch(64)
    network = LinearField(0)
    networks = Networks(network, network)
    losses = Shortcut(share=1.0).loss(networks, batch, draw, PhaseProgress(0, 1))
    assert float(losses.rows[losses.tag > 1].max()) < 1e-13
    made = Shortcut(share=1.0).targets(networks, batch, draw, PhaseProgress(0, 1))
    finest = made.tag == 1
    leading = made.query.x_t[finest] @ (A @ A).T / (2 * M)
    error = network(made.query.x_t[finest], made.query.t[finest], made.query.d[finest]) - made.target[finest]
    assert float((error - leading).norm() / leading.norm()) < 0.02


MEAN, STD = torch.tensor([1.5, -0.5]), torch.tensor([0.3, 0.8])


def gaussian_velocity(x: Tensor, t: Tensor) -> Tensor:
    """E[x1 - x0 | x_t] for x1 ~ N(mean, std^2), x0 ~ N(0, 1): linear regression of jointly Gaussian variables."""
    t = t[:, None]
    variance = (1 - t) ** 2 + (t * STD) ** 2
    return MEAN + (t * STD**2 - (1 - t)) / variance * (x - t * MEAN)


def test_a_trained_network_reaches_the_flow_map_of_gaussian_data_in_one_step() -> None:
    """The flow keeps quantiles: x0 -> mean + std x0. Tolerance: root mean square error 0.05 (data std 0.3 and 0.8)."""
    torch.manual_seed(0)
    network = MLPConfig(hidden=64, depth=2).build((2,), UNCONDITIONAL)
    target, average = Ema(network, 0.95), Ema(network, 0.99)
    objective, steps, rows = Shortcut(), 700, 256
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-4, foreach=True)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        draw = Draw(Keys(0), step, rows, slice(0, rows))
        batch = Batch(MEAN + STD * draw.normal("data", (2,)), draw.normal("noise", (2,)))
        objective.loss(
            Networks(network, target.network), batch, draw, PhaseProgress(step, steps)
        ).rows.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        target.update(network, step)
        average.update(network, step)
    x0 = torch.randn(2000, 2, generator=torch.Generator().manual_seed(5))
    exact = MEAN + STD * x0
    for budget in (1, 2, 8):
        error = sample(average.network, x0, steps=budget) - exact
        assert math.sqrt(float(error.square().mean())) < 0.05, budget
    t = torch.rand(2000, generator=torch.Generator().manual_seed(6))
    x_t = (1 - t)[:, None] * x0 + t[:, None] * (MEAN + STD * x0.flip(0))
    with torch.no_grad():
        error = average.network(x_t, t, torch.zeros_like(t)) - gaussian_velocity(x_t, t)
    assert math.sqrt(float(error.square().mean())) < 0.1


def test_euler_steps_of_the_closed_form_velocity_converge_to_the_flow_map() -> None:
    """The reference of the test above is itself right: error falls as 1/steps."""

    class Exact:
        def __call__(self, x: Tensor, t: Tensor, d: Tensor, *rest: object) -> Tensor:
            return gaussian_velocity(x, t)

    x0 = torch.randn(500, 2, generator=torch.Generator().manual_seed(5))
    errors = [float((sample(Exact(), x0, steps=n) - MEAN - STD * x0).abs().max()) for n in (64, 128)]
    assert errors[1] < 0.03
    assert 1.7 < errors[0] / errors[1] < 2.3
