"""Alpha-Flow's equation 8 and Algorithm 2, row by row in NumPy, and what its Theorem 1 says alpha makes of it."""

import numpy as np
import pytest
import torch

from anystep.core.random import Draw, Keys
from anystep.flow.sampling import sample
from anystep.objectives import Networks, PhaseProgress, Shortcut
from anystep.objectives.alpha_flow import AlphaFlow
from anystep.objectives.base import Batch, Targets
from anystep.objectives.mean_flow import MeanFlow
from tests.guidance import scales
from tests.paper import toy
from tests.paper.smooth import CLASSES, GaussianFlow, Smooth, part, smooth_batch

START = PhaseProgress(0, 1)


def constant(alpha: float, **fields: object) -> AlphaFlow:
    return AlphaFlow(alpha_min=alpha, alpha_max=alpha, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("objective", [AlphaFlow(), constant(0.3, shift="network"), constant(0.5, share=0.5)], ids=str)
def test_objective_equals_the_box(objective: AlphaFlow) -> None:
    """In the paper's own orientation: s = alpha r + (1 - alpha) t, z_s = z_t - (t - s) v~, times as noise levels."""
    batch, draw = smooth_batch(36)
    network, progress = Smooth.make(1), PhaseProgress(55, 100)
    made = objective.targets(Networks(network), batch, draw, progress)
    losses = objective.loss(Networks(network), batch, draw, progress)
    alpha = objective.alpha(0.55)
    assert alpha < 1 and made.query.condition is not None
    boundaries = np.round(np.arange(37) * objective.share)
    for i in range(36):
        t = 1 - float(made.query.t[i])
        r = t - float(made.query.d[i])
        x, e, c = batch.x1[i].numpy(), batch.x0[i].numpy(), int(made.query.condition[i])
        z, v = (1 - t) * x + t * e, e - x

        def u(z: np.ndarray, r: float, t: float, c: int = c) -> np.ndarray:
            return -network.row(z, 1 - t, t - r, c)  # towards the noise

        goal, weight = v, 1.0
        if boundaries[i + 1] > boundaries[i]:
            s = alpha * r + (1 - alpha) * t
            shift = u(z, s, t) if objective.shift == "network" else v
            goal = alpha * shift + (1 - alpha) * u(z - (t - s) * shift, r, s)
            weight = alpha
        np.testing.assert_allclose(-made.target[i].numpy(), goal, atol=1e-6)
        error = float(np.sum((u(z, r, t) - goal) ** 2))
        assert float(losses.rows[i]) == pytest.approx(weight * error / (error + 1e-3), abs=1e-5)


def test_alpha_of_one_half_is_the_shortcut_models_target() -> None:
    """Theorem 1: the same rows, t, d, labels, and targets, bit for bit, from the same draws."""
    rng = np.random.default_rng(0)
    x0, x1 = rng.normal(size=(2, 96, toy.WIDTH))
    batch = Batch(torch.from_numpy(x1), torch.from_numpy(x0), torch.from_numpy(rng.integers(0, toy.CLASSES, 96)))
    draw, network = Draw(Keys(0), 5, 96, slice(0, 96)), toy.Toy.make(1)
    networks = Networks(network, network)
    half = constant(0.5, shift="network", interval="dyadic", share=0.5, M=toy.M)
    ours = half.targets(networks, batch, draw, START)
    theirs = Shortcut(share=0.5, M=toy.M, label_drop_rows="all").targets(networks, batch, draw, START)
    for name in ("x_t", "t", "d", "condition"):
        assert torch.equal(getattr(ours.query, name), getattr(theirs.query, name)), name
    assert torch.equal(ours.target, theirs.target)
    assert torch.equal(ours.tag > 0, theirs.tag > 0) and int((ours.tag > 0).sum()) == 48


def made_by(objective: AlphaFlow | MeanFlow, network: Smooth) -> tuple[Targets, torch.Tensor]:
    """Targets, and the network's answers to their queries, of one step's rows."""
    batch, draw = smooth_batch(64)
    made = objective.targets(Networks(network), batch, draw, START)
    return made, network(made.query.x_t, made.query.t, made.query.d, made.query.condition)


def test_small_alpha_has_mean_flows_gradient() -> None:
    """Theorem 1: e / alpha tends to MeanFlow's error; what is left falls with alpha."""
    network = Smooth.make(1)
    limit, answer = made_by(MeanFlow(share=1.0), network)
    off = []
    for alpha in (1e-1, 1e-2):
        made, _ = made_by(constant(alpha, share=1.0), network)
        assert torch.equal(made.query.d, limit.query.d)
        off.append(float(((made.target - answer) / alpha - (limit.target - answer)).abs().max()))
    assert off[1] < 0.02 * float((limit.target - answer).abs().max())
    assert 8 < off[0] / off[1] < 12


def test_alpha_of_one_is_flow_matching_of_every_step() -> None:
    network = Smooth.make(1)
    batch, draw = smooth_batch(64)
    for shift in ("data", "network"):
        made = constant(1.0, shift=shift).targets(Networks(network), batch, draw, START)
        assert torch.equal(made.target, batch.x1 - batch.x0)
        assert int((made.query.d > 0).sum()) == 48
    assert network.rows == 0


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_the_exact_average_velocity_is_its_own_target(alpha: float) -> None:
    """Two exact parts of any lengths make the exact whole: the flow's semigroup."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 1, generator=generator, dtype=torch.float64)
    t, end = torch.rand(2, 200, generator=generator, dtype=torch.float64).sort(0).values
    flow = GaussianFlow()
    joined = constant(alpha, shift="network").joined(flow, x, t, end - t, None, torch.zeros_like(x), alpha)
    torch.testing.assert_close(joined, flow(x, t, end - t), rtol=0, atol=1e-9)


def algorithm_2(k: float, k_s: float, k_e: float, gamma: float, eta: float) -> float:
    scale, offset = 1 / (k_e - k_s), -(k_s + k_e) / 2 / (k_e - k_s)
    alpha = float(1 - 1 / (1 + np.exp(-(scale * k + offset) * gamma)))
    return 1.0 if alpha > 1 - eta else 0.0 if alpha < eta else alpha


@pytest.mark.parametrize(("begin", "end"), [(0.0, 1.0), (0.5, 5 / 6), (0.25, 0.26)])
def test_alpha_falls_as_in_algorithm_2_and_stays_at_its_least(begin: float, end: float) -> None:
    objective = AlphaFlow(begin=begin, end=end)
    ours = [objective.alpha(step / 1000) for step in range(1000)]
    theirs = [algorithm_2(step * 1200, begin * 1_200_000, end * 1_200_000, 25.0, 5e-3) for step in range(1000)]
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other or 5e-3, abs=1e-9)
    assert ours == sorted(ours, reverse=True) and ours[0] == 1.0 and ours[-1] == 5e-3


def test_dyadic_steps_begin_at_multiples_of_themselves_at_equal_shares() -> None:
    batch, draw = smooth_batch(480)
    made = AlphaFlow(interval="dyadic", M=8, share=0.75).targets(Networks(Smooth.make(1)), batch, draw, START)
    counts = {d: int((made.query.d == d).sum()) for d in (0.0, 0.25, 0.5, 1.0)}
    assert counts == {0.0: 120, 0.25: 120, 0.5: 120, 1.0: 120}
    moved = made.query.d > 0
    assert torch.equal((made.query.t / made.query.d)[moved], (made.query.t / made.query.d)[moved].floor())


def test_parts_of_the_global_batch_are_the_global_batch() -> None:
    batch, draw = smooth_batch(48)
    networks, progress = Networks(Smooth.make(1)), PhaseProgress(6, 10)
    whole = AlphaFlow().loss(networks, batch, draw, progress).rows
    parts = [AlphaFlow().loss(networks, *part(batch, draw, slice(n, n + 16)), progress).rows for n in (0, 16, 32)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "objective", [AlphaFlow(), AlphaFlow(begin=0.5, end=0.9), constant(0.5), constant(0.5, shift="network")], ids=str
)
def test_cost_is_what_the_network_is_asked_for_over_a_run(objective: AlphaFlow) -> None:
    batch, draw = smooth_batch(16)
    network = Smooth.make(1)
    for step in range(100):
        made = objective.targets(Networks(network), batch, draw, PhaseProgress(step, 100))
        assert not made.target.requires_grad
    assert (3 * 1600 + network.rows) / (3 * 1600) == pytest.approx(objective.cost, abs=0.005)


def test_any_number_of_steps_of_the_exact_average_velocity_is_the_flow() -> None:
    x = torch.randn(50, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for steps in (1, 3, 64):
        end = sample(GaussianFlow(), x, steps=AlphaFlow().schedule(steps))
        torch.testing.assert_close(end, 1.5 + 0.3 * x, rtol=0, atol=2e-5)


def test_guidance_needs_a_null_label_that_was_trained() -> None:
    """Labels are dropped at every d, so that the null label is there for every step."""
    batch, draw = smooth_batch(400)
    label = AlphaFlow(label_drop=0.5).targets(Networks(Smooth.make(1)), batch, draw, START).query
    assert label.condition is not None and {0.0} < set(label.d[label.condition == CLASSES].tolist())
    assert scales(AlphaFlow(), AlphaFlow().schedule(2), 2.0) == [2.0, 2.0]
    with pytest.raises(ValueError, match=r"which was never trained: train with objective\.label_drop 0\.1"):
        scales(AlphaFlow(label_drop=0.0), AlphaFlow().schedule(2), 2.0)


def test_too_few_rows_for_the_ladder_are_refused() -> None:
    AlphaFlow().check_batch(1)
    with pytest.raises(ValueError, match="fewer than the 7 levels"):
        AlphaFlow(interval="dyadic").check_batch(8)


@pytest.mark.parametrize(
    ("name", "value"),
    [("share", 1.1), ("alpha_min", 0.0), ("alpha_min", 0.5), ("alpha_min", 0.7), ("alpha_max", 1e-3), ("begin", 1.0),
     ("end", 1.5), ("temperature", 0.0), ("shift", "noise"), ("interval", "uniform"), ("time_std", -1.0), ("M", 100),
     ("adaptive_floor", 0.0), ("label_drop", -0.1), ("time_mean", float("nan"))],
)  # fmt: skip
def test_a_value_out_of_range_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^objective\.{name} must be .*got {value!r}"):
        AlphaFlow(**{name: value})  # type: ignore[arg-type]
