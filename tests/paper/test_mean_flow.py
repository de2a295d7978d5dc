"""MeanFlow's Algorithm 1, transcribed row by row with finite differences, and what its identity says."""

from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy import stats

from anystep.flow.condition import class_labels
from anystep.flow.sampling import sample
from anystep.networks import DiTConfig, MLPConfig, NetworkConfig
from anystep.objectives import Networks, PhaseProgress, Query
from anystep.objectives.mean_flow import MeanFlow, total_derivative
from tests.guidance import scales
from tests.paper.smooth import CLASSES, GaussianFlow, Smooth, part, smooth_batch

START = PhaseProgress(0, 1)


def sigmoid(z: float) -> float:
    return float(1 / (1 + np.exp(-z)))


@pytest.mark.parametrize(
    "objective",
    [MeanFlow(), MeanFlow(share=1.0, label_drop=0.5), MeanFlow(share=0.5, time_mean=-1.0, time_std=2.0)],
    ids=lambda o: f"share={o.share:g}",
)
def test_objective_equals_the_box(objective: MeanFlow) -> None:
    """In the paper's own orientation: r <= t are noise levels, z_t = (1 - t) x + t e, u_tgt = v - (t - r) du/dt."""
    batch, draw = smooth_batch(36)
    network = Smooth.make(1)
    made = objective.targets(Networks(network), batch, draw, START)
    losses = objective.loss(Networks(network), batch, draw, START)
    one, other, drop = (draw.uniform(name).double().numpy() for name in ("time", "time_end", "label_drop"))
    boundaries = np.round(np.arange(37) * objective.share)
    assert made.query.condition is not None and batch.condition is not None
    for i in range(36):
        levels = [
            sigmoid(-objective.time_mean + objective.time_std * NormalDist().inv_cdf(1 - u)) for u in (one[i], other[i])
        ]
        t, r = max(levels), min(levels)
        flow = boundaries[i + 1] == boundaries[i]
        r = t if flow else r
        x, e = batch.x1[i].numpy(), batch.x0[i].numpy()
        z, v = (1 - t) * x + t * e, e - x
        c = CLASSES if drop[i] < objective.label_drop else int(batch.condition[i])

        def u(z: np.ndarray, r: float, t: float, c: int = c) -> np.ndarray:
            return -network.row(z, 1 - t, t - r, c)  # towards the noise

        h = 1e-5
        dudt = (u(z + h * v, r, t + h) - u(z - h * v, r, t - h)) / (2 * h)
        goal = v - (t - r) * dudt
        assert float(made.query.t[i]) == pytest.approx(1 - t, abs=1e-6)
        assert float(made.query.d[i]) == pytest.approx(t - r, abs=1e-6)
        assert int(made.query.condition[i]) == c and int(made.tag[i]) == (0 if flow else 1)
        np.testing.assert_allclose(made.query.x_t[i].numpy(), z, atol=1e-5)
        np.testing.assert_allclose(-made.target[i].numpy(), goal, atol=2e-5)
        error = float(np.sum((u(z, r, t) - goal) ** 2))
        assert float(losses.rows[i]) == pytest.approx(error / (error + 1e-3), abs=1e-5)


def gaussian_rows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 1, generator=generator, dtype=torch.float64)
    t, end = torch.rand(2, 200, generator=generator, dtype=torch.float64).sort(0).values
    return x, t, end - t


def test_the_exact_average_velocity_is_its_own_target() -> None:
    """u = v + d du/dt holds for the closed-form flow of Gaussian data, at every x, t and d."""
    flow, (x, t, d) = GaussianFlow(), gaussian_rows()
    v = flow.velocity(x, t)
    target = v + d[:, None] * total_derivative(flow, x, t, d, None, v)
    torch.testing.assert_close(target, flow(x, t, d), rtol=0, atol=1e-9)


def test_the_datas_velocity_is_as_good_as_the_marginal_one_on_average() -> None:
    """The target is affine in v, so its mean over x1 given x_t is the target of the mean velocity."""
    flow, (x, t, d) = GaussianFlow(), gaussian_rows()
    v, off = flow.velocity(x, t), torch.randn(200, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rates = [total_derivative(flow, x, t, d, None, v + sign * off) for sign in (-1, 0, 1)]
    torch.testing.assert_close((rates[0] + rates[2]) / 2, rates[1])
    assert float((rates[2] - rates[1]).abs().min()) > 1e-6


SMALL = {"hidden": 32, "depth": 2, "heads": 4, "step_encoding": "continuous", "time_scale": 1.0}


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (DiTConfig(**SMALL), (1, 8, 8)),
        (DiTConfig(**SMALL), (1, 36, 36)),  # 324 tokens: fused attention
        (DiTConfig(**SMALL, qk_norm=True, norm="rms", mlp="swiglu", positions="rotary"), (1, 36, 36)),
        (MLPConfig(hidden=32, depth=2, step_encoding="continuous", time_scale=1.0), (2,)),
    ],
    ids=["16 tokens", "324 tokens", "324 tokens, other parts", "mlp"],
)
def test_derivative_of_our_networks_is_that_of_finite_differences(
    config: NetworkConfig, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    network = config.build(shape, class_labels(CLASSES)).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, v = torch.randn(2, 2, *shape, dtype=torch.float64)
    t, d, label = torch.tensor([0.3, 0.5]), torch.tensor([0.6, 0.25]), torch.tensor([0, CLASSES])
    t, d, h = t.double(), d.double(), 1e-2
    rate = total_derivative(network, x, t, d, label, v)
    with torch.no_grad():
        near, far = (
            network(x + n * h * v, t + n * h, d - n * h, label) - network(x - n * h * v, t - n * h, d + n * h, label)
            for n in (1, 2)
        )
    differences = (8 * near - far) / (12 * h)
    assert not rate.requires_grad
    assert float((rate - differences).abs().max()) < 1e-3 * float(rate.abs().max())


def test_times_are_the_papers_in_noise_levels() -> None:
    """The noisier of two levels of law logit-normal(-0.4, 1), and the interval to the other one (Table 1d)."""
    batch, draw = smooth_batch(8000)
    made = MeanFlow(share=1.0).targets(Networks(Smooth.make(1)), batch, draw, START)
    level, end = 1 - made.query.t.double().numpy(), 1 - (made.query.t + made.query.d).double().numpy()
    law = stats.norm(-0.4, 1)
    assert stats.kstest(np.log(level / (1 - level)), lambda z: law.cdf(z) ** 2).pvalue > 1e-3
    assert stats.kstest(np.log(end / (1 - end)), lambda z: 1 - law.sf(z) ** 2).pvalue > 1e-3


def test_a_quarter_of_the_rows_of_every_part_has_a_step() -> None:
    batch, draw = smooth_batch(128)
    for first in range(0, 128, 32):
        made = MeanFlow().targets(Networks(Smooth.make(1)), *part(batch, draw, slice(first, first + 32)), START)
        assert int((made.query.d > 0).sum()) == 8
        flow = made.tag == 0
        rows = slice(first, first + 32)
        assert torch.equal(made.query.d > 0, ~flow)
        assert torch.equal(made.target[flow], (batch.x1 - batch.x0)[rows][flow])


def test_parts_of_the_global_batch_are_the_global_batch() -> None:
    batch, draw = smooth_batch(48)
    networks = Networks(Smooth.make(1))
    whole = MeanFlow().loss(networks, batch, draw, START).rows
    parts = [
        MeanFlow().loss(networks, *part(batch, draw, slice(first, first + 16)), START).rows for first in (0, 16, 32)
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_adaptive_weight_scales_the_gradient_and_is_not_differentiated(power: float) -> None:
    prediction = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    target, query = torch.ones(6, 2, 3), Query(prediction, torch.zeros(6), torch.ones(6))
    MeanFlow(adaptive_power=power).error(prediction, target, query).sum().backward()
    error = (prediction - target).detach()
    weight = (error.square().sum((1, 2)) + 1e-3) ** -power
    torch.testing.assert_close(prediction.grad, 2 * weight[:, None, None] * error)


def test_the_target_carries_no_gradient_and_the_online_network_gets_one() -> None:
    network = MLPConfig(hidden=16, depth=1, step_encoding="continuous").build((5,), class_labels(CLASSES))
    batch, draw = smooth_batch(32)
    made = MeanFlow().targets(Networks(network), batch, draw, START)
    assert not made.target.requires_grad
    MeanFlow().loss(Networks(network), batch, draw, START).rows.sum().backward()
    assert network.leave.weight.grad is not None and float(network.leave.weight.grad.abs().sum()) > 0


def test_any_number_of_steps_of_the_exact_average_velocity_is_the_flow() -> None:
    """Each step is told its own length, so the closed form ends at the data whatever the budget."""
    flow, x = GaussianFlow(), torch.randn(50, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for steps in (1, 2, 3, 7, 200):
        end = sample(flow, x, steps=MeanFlow().schedule(steps))
        torch.testing.assert_close(end, 1.5 + 0.3 * x, rtol=0, atol=2e-5)


def test_guidance_needs_a_null_label_that_was_trained() -> None:
    plan = MeanFlow().schedule(2)
    assert scales(MeanFlow(), plan, 2.0) == [2.0, 2.0]
    with pytest.raises(ValueError, match=r"which was never trained: train with objective\.label_drop 0\.1"):
        scales(MeanFlow(label_drop=0.0), plan, 2.0)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_cost_counts_a_derivative_as_two_forward_passes(share: float) -> None:
    batch, draw = smooth_batch(64)
    network = Smooth.make(1)
    MeanFlow(share=share).targets(Networks(network), batch, draw, START)
    assert (3 * 64 + 2 * network.rows) / (3 * 64) == pytest.approx(MeanFlow(share=share).cost)


@pytest.mark.parametrize(
    ("name", "value"),
    [("share", -0.1), ("share", 1.1), ("time_mean", float("inf")), ("time_std", 0.0), ("adaptive_power", 2.5),
     ("adaptive_floor", 0.0), ("label_drop", 1.5)],
)  # fmt: skip
def test_a_value_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^objective\.{name} must be .*got {value}"):
        MeanFlow(**{name: value})
