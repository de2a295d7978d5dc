"""What diffusion is beside flow matching: another law of time and another weight on the same velocities."""

import math

import pytest
import torch
from scipy import stats
from tests.guidance import scales
from torch import Tensor

from anystep.core.random import Draw, Keys
from anystep.flow.condition import UNCONDITIONAL
from anystep.flow.conventions import VP_START, vp_alpha_bar, vp_times
from anystep.flow.query import PhaseProgress
from anystep.flow.sampling import sample
from anystep.networks import MLPConfig, VelocityNetwork
from anystep.objectives import FlowMatching
from anystep.objectives.base import Batch, Networks, Objective
from anystep.objectives.diffusion import Diffusion

MEAN, STD = 1.5, 0.4
ROWS = 20_000


class BestNoise(VelocityNetwork):
    """E[noise | x_tau] for data N(mean, std^2): x_tau = a x1 + b noise are jointly Gaussian."""

    def __init__(self) -> None:
        super().__init__(UNCONDITIONAL, "noise")

    def output(self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None, guidance: Tensor | None) -> Tensor:
        a, b = ((c / torch.hypot(t, 1 - t))[:, None] for c in (t, 1 - t))
        return b * (x - a * MEAN) / (a**2 * STD**2 + b**2)


class BestVelocity:
    """E[x1 - x0 | x_t], what flow matching learns of the same data."""

    def __call__(self, x: Tensor, t: Tensor, d: Tensor, *rest: object) -> Tensor:
        t = t[:, None]
        return MEAN + (t * STD**2 - (1 - t)) / ((1 - t) ** 2 + (t * STD) ** 2) * (x - t * MEAN)


def gaussian_batch() -> tuple[Batch, Draw]:
    x0, z = torch.randn(2, ROWS, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Batch(MEAN + STD * z, x0), Draw(Keys(0), 0, ROWS, slice(0, ROWS))


def test_the_best_noise_network_is_the_best_velocity_network() -> None:
    """Same marginals, so the same field: both methods learn one flow."""
    t = torch.linspace(VP_START, 1, 500, dtype=torch.float64)
    x = 2 * torch.randn(500, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    d = torch.zeros(500)
    torch.testing.assert_close(BestNoise()(x, t, d), BestVelocity()(x, t, d), rtol=0, atol=1e-11)


@pytest.mark.parametrize("objective", [Diffusion(), FlowMatching(time="uniform")], ids=lambda o: o.name)
def test_no_change_of_that_field_lowers_either_loss(objective: Objective) -> None:
    """The derivative of the mean loss along any fixed change g(x, t) of the velocity is zero, within 5 deviations."""
    batch, draw = gaussian_batch()
    made = objective.targets(Networks(BestVelocity()), batch, draw, PhaseProgress(0, 1))
    query, weight = made.query, torch.ones(ROWS) if made.weight is None else made.weight
    t = query.t.double()[:, None]
    error = weight.double()[:, None] * (BestNoise()(query.x_t, query.t.double(), query.d) - made.target)
    for change in (torch.ones_like(t), query.x_t, t, torch.sin(3 * query.x_t), query.x_t * (1 - t)):
        slope = error * change
        assert abs(float(slope.mean())) < 5 * float(slope.std()) / math.sqrt(ROWS)


@pytest.mark.parametrize("objective", [Diffusion(), FlowMatching()], ids=lambda o: o.name)
def test_both_schedules_carry_noise_along_the_one_flow(objective: Objective) -> None:
    """It keeps quantiles: x0 -> mean + std x0. Diffusion starts without the mean's first 0.6 %."""
    x0 = torch.randn(2000, 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    errors = []
    for steps in (100, 200):
        schedule = objective.schedule(steps)
        drawn = sample(BestNoise(), objective.start(x0, schedule), steps=schedule)
        errors.append(float((drawn - MEAN - STD * x0).square().mean().sqrt()))
    assert errors[1] < errors[0] < 0.02


def test_every_level_is_drawn_alike() -> None:
    """tau is uniform over 0 ... 999; rows at a level weigh t^2."""
    batch, draw = gaussian_batch()
    made = Diffusion().targets(Networks(BestVelocity()), batch, draw, PhaseProgress(0, 1))
    level = torch.searchsorted(-vp_times().float(), -made.query.t)
    assert torch.equal(vp_times().float()[level], made.query.t)
    assert stats.chisquare(torch.bincount(level, minlength=1000).numpy()).pvalue > 1e-3
    assert made.weight is not None
    torch.testing.assert_close(made.weight, made.query.t**2)
    assert float(made.query.d.abs().max()) == 0


def test_one_step_multiplies_an_error_of_the_noise_by_158() -> None:
    """Why one-step samples fail: the data is a hundredth part of x there. x1 = (x_tau - b noise) / a."""
    schedule = Diffusion().schedule(1)
    a = float(vp_alpha_bar()[-1].sqrt())
    assert (schedule[0].t, schedule[0].length) == (VP_START, 1 - VP_START)
    gain = schedule[0].length / schedule[0].t
    assert gain == pytest.approx(math.sqrt(1 - a**2) / a) == pytest.approx(157.4, abs=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_network_learns_the_flow_whatever_it_computes_in(dtype: torch.dtype) -> None:
    """Near the optimum at every level, in bfloat16 under autocast too: no level spoils the rest."""
    torch.manual_seed(0)
    network = MLPConfig(hidden=64, depth=2, step_encoding="none", prediction="noise").build((1,), UNCONDITIONAL)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    objective, rows = Diffusion(), 256
    for step in range(300):
        draw = Draw(Keys(0), step, rows, slice(0, rows))
        batch = Batch(MEAN + STD * draw.normal("data", (1,)), draw.normal("noise", (1,)))
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            loss = objective.loss(Networks(network), batch, draw, PhaseProgress(step, 300)).rows.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    t = torch.linspace(VP_START, 1, 1000)
    x = t[:, None] * MEAN + ((1 - t) ** 2 + (t * STD) ** 2).sqrt()[:, None] * torch.randn(1000, 1)
    with torch.no_grad():
        error = t[:, None] * (network(x, t, torch.zeros(1000)) - BestVelocity()(x, t, torch.zeros(1000)))
    assert float(error.square().mean().sqrt()) < 0.1


def test_more_steps_than_levels_are_refused() -> None:
    with pytest.raises(
        ValueError, match="steps must be at most 1000, the number of noise levels of diffusion, got 1001"
    ):
        Diffusion().schedule(1001)
    with pytest.raises(ValueError, match="steps must be an integer of at least 1, got 0"):
        Diffusion().schedule(0)


def test_guidance_needs_a_null_label_that_was_trained() -> None:
    objective = Diffusion(label_drop=0.0)
    assert scales(objective, objective.schedule(3), 1.0) == [1.0] * 3
    with pytest.raises(ValueError, match=r"which was never trained: train with objective\.label_drop 0\.1"):
        scales(objective, objective.schedule(3), 1.5)
    assert scales(Diffusion(), Diffusion().schedule(2), 1.5) == [1.5] * 2


@pytest.mark.parametrize("changes", [{"M": 100}, {"label_drop": -0.1}, {"label_drop": 1.1}])
def test_invalid_hyper_parameters_name_the_field(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"objective.{next(iter(changes))} must be"):
        Diffusion(**changes)  # type: ignore[arg-type]
