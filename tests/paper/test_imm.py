"""IMM's Algorithm 3 and equation 67 as loops in NumPy, in the paper's own orientation, and what a discrepancy is."""

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anystep.core.random import Draw
from anystep.objectives import Networks, PhaseProgress
from anystep.objectives.base import Batch
from anystep.objectives.imm import IMM, discrepancy
from tests.guidance import scales
from tests.paper.smooth import CLASSES, WIDTH, Smooth, part, smooth_batch
from tests.toys import WithNull

START = PhaseProgress(0, 1)


def eta(t: float) -> float:
    return t / (1 - t)


def weight(t: float, a: float, b: float) -> float:
    """Equation 13, with the derivative of the log-SNR by central differences."""

    def snr(t: float) -> float:
        return float(2 * np.log((1 - t) / t))

    slope = (snr(t + 1e-6) - snr(t - 1e-6)) / 2e-6
    return float(0.5 / (1 + np.exp(snr(t) - b)) * -slope * (1 - t) ** a / ((1 - t) ** 2 + t**2))


def laplace(x: np.ndarray, y: np.ndarray, s: float, t: float) -> float:
    return float(np.exp(-max(float(np.linalg.norm(x - y)), 1e-8) / (t - s) / len(x)))


@pytest.mark.parametrize("objective", [IMM(), IMM(particles=2, a=1.0, k=6, gap=0.0), IMM(particles=8, k=3)], ids=str)
def test_loss_equals_the_double_loop(objective: IMM) -> None:
    """f_{s,t}(x) = x - (t - s) G(x, s, t) with t the noise level: groups of M particles, each M x M pairs."""
    M, rows = objective.particles, 48
    batch, draw = smooth_batch(rows)
    network = Smooth.make(1)
    losses = objective.loss(Networks(network), batch, draw, START)
    query = objective.targets(Networks(network), batch, draw, START).query
    time, step = (draw.uniform(name).double().numpy() for name in ("time", "step"))
    assert query.condition is not None
    T, total, below = 1 - 1 / (1 + objective.eta_max), 0.0, 0
    for first in range(0, rows, M):
        t = T * (1 - time[first])  # U(0, T)
        s = t * (1 - step[first])  # U(0, t)
        lower = eta(t) - objective.eta_max / 2**objective.k
        r = max(s, min(t - objective.gap, lower / (1 + lower) if lower > 0 else 0.0))
        below += r == s

        def push(x: np.ndarray, s: float, t: float, c: int) -> np.ndarray:
            return x + (t - s) * network.row(x, 1 - t, t - s, c)

        y, y_less = [], []
        for i in range(first, first + M):
            x, e, c = batch.x1[i].numpy(), batch.x0[i].numpy(), int(query.condition[i])
            assert float(query.t[i]) == pytest.approx(1 - t, abs=1e-6)
            assert float(query.d[i]) == pytest.approx(t - s, abs=1e-6)
            y.append(push((1 - t) * x + t * e, s, t, c))
            y_less.append(push((1 - r) * x + r * e, s, r, c))
        group = 0.0
        for j in range(M):
            for k in range(M):
                group += laplace(y[j], y[k], s, t) + laplace(y_less[j], y_less[k], s, t)
                group -= 2 * laplace(y[j], y_less[k], s, t)
        group *= weight(t, objective.a, objective.b) / M**2
        np.testing.assert_allclose(losses.rows[first : first + M].double().numpy(), group, rtol=2e-3, atol=2e-6)
        total += group / (rows // M)
    assert float(losses.rows.mean()) == pytest.approx(total, rel=1e-3)
    assert objective.k > 3 or below > 0


def test_both_branches_of_one_point_arrive_together() -> None:
    """Data that is one point has straight flows, u = (x1 - x)/(1 - t): the loss is 0 for any t, d and labels."""
    point = torch.full((WIDTH,), 0.7, dtype=torch.float64)

    class Straight(WithNull):
        num_classes = CLASSES

        def __call__(self, x: Tensor, t: Tensor, *rest: object) -> Tensor:
            return (point - x) / (1 - t[:, None].double()).clamp(min=1e-12)

    batch, draw = smooth_batch(400)
    batch = replace(batch, x1=point.expand(400, -1))
    exact = IMM().loss(Networks(Straight()), batch, draw, START).rows
    other = IMM().loss(Networks(Smooth.make(1)), batch, draw, START).rows
    assert float(exact.abs().max()) < 1e-5
    assert float(other.max()) > 1e-2


def test_discrepancy_is_none_of_the_same_particles_in_any_order_and_positive_of_others() -> None:
    x, u = torch.randn(2, 50, 6, 3, generator=torch.Generator().manual_seed(0))
    d = torch.full((50, 6), 0.25)
    assert float(discrepancy(x, u, u, d).abs().max()) < 1e-6
    rolled = u.roll(1, 1) + (x.roll(1, 1) - x) / 0.25  # the same six places, each reached by the next particle
    assert float(discrepancy(x, u, rolled, d).abs().max()) < 1e-6
    assert float(discrepancy(x, u, torch.randn_like(u), d).min()) > 1e-3


def test_one_particle_is_a_consistency_model() -> None:
    """Lemma 1's reading with the Laplace kernel: M = 1 leaves the distance of a particle's two pushes."""
    x, u, other = torch.randn(3, 20, 1, 4, generator=torch.Generator().manual_seed(0))
    d = torch.rand(20, 1, generator=torch.Generator().manual_seed(1))
    expected = 2 - 2 * torch.exp(-(u - other).norm(dim=2)[:, 0] / 4)
    torch.testing.assert_close(discrepancy(x, u, other, d), expected)


def test_tiny_steps_keep_the_distance_of_a_particles_two_pushes() -> None:
    """In float32, x + d u and x + d u' are the same number at d = 1e-9; their average velocities are not."""
    x, u, other = torch.randn(3, 20, 1, 4, generator=torch.Generator().manual_seed(0))
    for d in (1e-9, 0.0):
        near = discrepancy(x, u, other, torch.full((20, 1), d))
        torch.testing.assert_close(near, discrepancy(x, u, other, torch.ones(20, 1)))


def test_the_gradient_goes_through_the_noisier_branch_only() -> None:
    """It is the derivative of the loss in weights that the less noisy branch does not have."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Linear(WIDTH + 2, 16), nn.Linear(16, WIDTH)

        def forward(self, x: Tensor, t: Tensor, d: Tensor, *rest: object) -> Tensor:
            told = torch.cat([x.float(), t[:, None], d[:, None]], 1)
            return self.outer(torch.tanh(self.inner(told))).to(x.dtype)

    torch.manual_seed(0)
    online = Branches()
    batch, draw = smooth_batch(64)
    batch, objective = (
        replace(batch, condition=None),
        IMM(gap=0.1),
    )  # no two pushes so near that the kernel has its kink
    objective.loss(Networks(online), batch, draw, START).rows.mean().backward()
    gradient = [parameter.grad.double() for parameter in online.parameters() if parameter.grad is not None]
    way = [torch.randn_like(parameter) for parameter in online.parameters()]

    def moved(h: float) -> float:
        network = copy.deepcopy(online)
        with torch.no_grad():
            for parameter, direction in zip(network.parameters(), way, strict=True):
                parameter.add_(direction, alpha=h)

        def both(*arguments: Tensor) -> Tensor:
            return (network if torch.is_grad_enabled() else online)(*arguments)

        return float(objective.loss(Networks(both), batch, draw, START).rows.detach().double().mean())  # type: ignore[arg-type]

    slope = (moved(2e-3) - moved(-2e-3)) / 4e-3
    expected = sum(float((g * w).sum()) for g, w in zip(gradient, way, strict=True))
    assert slope == pytest.approx(expected, rel=0.02)


def test_the_second_time_is_a_constant_less_noisy() -> None:
    """Constant decrement in eta = (1 - t)/t, at least the gap, at most the whole step (C.6)."""
    objective = IMM(gap=0.0)
    t = torch.linspace(objective.t_min, 1, 1001, dtype=torch.float64)
    r = objective.second_time(t, 1 - t)
    decrement = (1 - t) / t - (1 - r) / r
    assert torch.allclose(decrement[r < 1], torch.tensor(160 / 4096, dtype=torch.float64))
    assert float(t[r == 1][0]) == pytest.approx(1 / (1 + 160 / 4096), abs=1e-3)
    d = (1 - t) / 100
    short = IMM().second_time(t, d)
    assert bool((short <= t + d).all()) and bool((short >= torch.minimum(t + 1e-4, t + d)).all())


def test_the_weight_is_finite_at_both_ends() -> None:
    for a in (1.0, 2.0):
        objective = IMM(a=a)
        ends = objective.weight(torch.tensor([objective.t_min, 1.0]))
        assert bool(ends.isfinite().all()) and float(ends[1]) == 0


def parts_of(whole: Callable[[Batch, Draw], Tensor], batch: Batch, draw: Draw, size: int) -> Tensor:
    return torch.cat([whole(*part(batch, draw, slice(n, n + size))) for n in range(0, draw.total, size)])


def test_parts_of_whole_groups_are_the_global_batch() -> None:
    batch, draw = smooth_batch(48)
    networks = Networks(Smooth.make(1))
    for size in (4, 16):
        parts = parts_of(lambda *both: IMM().loss(networks, *both, START).rows, batch, draw, size)
        torch.testing.assert_close(parts, IMM().loss(networks, batch, draw, START).rows, rtol=0, atol=1e-6)


def test_a_group_shares_its_times_and_not_its_labels() -> None:
    batch, draw = smooth_batch(400)
    query = IMM(label_drop=0.5).targets(Networks(Smooth.make(1)), batch, draw, START).query
    assert query.condition is not None
    for shared in (query.t, query.d):
        groups = shared.reshape(-1, 4)
        assert torch.equal(groups, groups[:, :1].expand(-1, 4)) and len(groups[:, 0].unique()) == 100
    assert len({tuple(sorted(group)) for group in query.condition.reshape(-1, 4).tolist()}) > 10
    assert IMM(particles=8).group == 8
    with pytest.raises(ValueError, match=r"training\.batch 66 is no multiple of objective\.particles 4"):
        IMM().check_batch(66)


@pytest.mark.parametrize("steps", [1, 2, 8, 300])
def test_steps_are_equal_from_the_noisiest_time_to_the_data(steps: int) -> None:
    plan = IMM().schedule(steps)
    assert plan[0].t == IMM().t_min == pytest.approx(1 - 0.994, abs=3e-4)  # the paper's T
    assert plan[-1].t + plan[-1].length == pytest.approx(1)
    assert {round(step.length, 12) for step in plan} == {round(step.d, 12) for step in plan}
    np.testing.assert_allclose(np.diff([step.t for step in plan]), plan[0].length)
    assert scales(IMM(), plan, 1.5) == [1.5] * steps
    with pytest.raises(ValueError, match=r"which was never trained: train with objective\.label_drop 0\.1"):
        scales(IMM(label_drop=0.0), plan, 1.5)


def test_cost_is_one_more_forward_pass() -> None:
    batch, draw = smooth_batch(64)
    network = Smooth.make(1)
    made = IMM().targets(Networks(network), batch, draw, START)
    assert not made.target.requires_grad
    assert (3 * 64 + network.rows) / (3 * 64) == pytest.approx(IMM().cost)


@pytest.mark.parametrize(
    ("name", "value"),
    [("particles", 0), ("eta_max", 0.0), ("k", 0), ("gap", 1.0), ("a", 0.5), ("b", float("inf")), ("label_drop", 2.0)],
)
def test_a_value_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^objective\.{name} must be .*got {value}"):
        IMM(**{name: value})  # type: ignore[arg-type]
