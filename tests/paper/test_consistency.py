"""Consistency training, plain and improved, row by row in NumPy; their curricula; stochastic sampling."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from anystep.core.random import Draw, Keys
from anystep.flow.ladder import instantaneous_schedule
from anystep.flow.path import data_from_velocity, expand
from anystep.flow.query import PhaseProgress
from anystep.flow.sampling import sample
from anystep.objectives.base import Batch, Networks
from anystep.objectives.consistency_training import ConsistencyTraining
from anystep.objectives.ict import ImprovedConsistencyTraining
from tests.paper.toy import CLASSES, WIDTH, M, Toy

ROWS = 40
DRAW = Draw(Keys(0), step=5, total=ROWS, rows=slice(0, ROWS))


def batch() -> Batch:
    rng = np.random.default_rng(0)
    x0, x1 = torch.from_numpy(rng.normal(size=(2, ROWS, WIDTH)))
    return Batch(x1, x0, torch.from_numpy(rng.integers(0, CLASSES, ROWS)))


def labels(given: Batch, drop: float) -> list[int]:
    """Return the labels of which some are dropped."""
    assert given.condition is not None
    dropped = DRAW.uniform("label_drop").numpy() < drop
    return [CLASSES if lost else int(c) for lost, c in zip(dropped, given.condition, strict=True)]


@pytest.mark.parametrize("stage", range(4))
def test_consistency_training_equals_the_box(stage: int) -> None:
    """log2 8 + 1 = 4 stages of 1, 2, 4, 8 bins."""
    objective, given = ConsistencyTraining(M=M, label_drop=0.3), batch()
    online, target = Toy.make(1), Toy.make(2)
    progress = PhaseProgress(100 * stage + 99, 400)
    made = objective.targets(Networks(online, target), given, DRAW, progress)
    losses = objective.loss(Networks(online, target), given, DRAW, progress)
    u, d = DRAW.uniform("time").numpy(), 0.5**stage
    for i, c in enumerate(labels(given, 0.3)):
        x0, x1 = given.x0[i].numpy(), given.x1[i].numpy()
        t = np.floor(u[i] / d) * d
        later = t + d
        x_t, x_later = (1 - t) * x0 + t * x1, (1 - later) * x0 + later * x1
        x1hat = x_later + (1 - later) * target.row(x_later, later, 0, c)
        goal = (x1hat - x_t) / (1 - t)
        assert (float(made.query.t[i]), float(made.query.d[i])) == (t, 0)
        assert made.query.condition is not None and int(made.query.condition[i]) == c
        assert objective.tags[int(made.tag[i])] == ("flow" if later == 1 else f"1/{2**stage}")
        np.testing.assert_allclose(made.query.x_t[i].numpy(), x_t, atol=1e-12)
        np.testing.assert_allclose(made.target[i].numpy(), goal, atol=1e-12)
        assert later < 1 or np.allclose(goal, x1 - x0, rtol=0, atol=1e-12)
        np.testing.assert_allclose(float(losses.rows[i]), np.mean((online.row(x_t, t, 0, c) - goal) ** 2), rtol=1e-5)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_improved_consistency_training_equals_the_box_of_its_own_paper(stage: int) -> None:
    """In the paper's coordinates, x_sigma = y + sigma x0 with data y of deviation 1/2, and with the paper's numbers.

    Ours is standardised, x1 = 2 y. f(x_sigma, sigma) is half of ours and the weight twice ours: one loss, one gradient.
    """
    objective, given = ImprovedConsistencyTraining(M=8, initial_bins=3, label_drop=0.3), batch()
    online = Toy.make(1)
    losses = objective.loss(Networks(online), given, DRAW, PhaseProgress(stage, 4))
    made = objective.targets(Networks(online), given, DRAW, PhaseProgress(stage, 4))
    said = online(made.query.x_t, made.query.t, made.query.d, made.query.condition).requires_grad_()
    (made.weight * objective.error(said, made.target, made.query)).sum().backward()  # type: ignore[operator]
    assert said.grad is not None
    count, rho = 3 * 2**stage + 1, 7
    sigma = [
        (0.002 ** (1 / rho) + i / (count - 1) * (80 ** (1 / rho) - 0.002 ** (1 / rho))) ** rho for i in range(count)
    ]
    z = [(math.log(s) + 1.1) / (math.sqrt(2) * 2.0) for s in sigma]
    p = np.array([math.erf(z[i + 1]) - math.erf(z[i]) for i in range(count - 1)])
    c_huber = 0.00054 * math.sqrt(WIDTH)
    u = DRAW.uniform("time").numpy()

    def f(x_sigma: np.ndarray, s: float, c: int) -> np.ndarray:
        """Skip sigma_data/(sigma_data + sigma), out sigma times that, in 1/(sigma_data + sigma)."""
        skip = 0.5 / (0.5 + s)
        return skip * x_sigma + skip * s * online.row(x_sigma / (0.5 + s), skip, 0, c)

    seen = set()
    for n, c in enumerate(labels(given, 0.3)):
        i = int(np.sum(np.cumsum(p / p.sum()) <= u[n]))
        seen.add(i)
        x0, y = given.x0[n].numpy(), given.x1[n].numpy() / 2
        off = f(y + sigma[i + 1] * x0, sigma[i + 1], c) - f(y + sigma[i] * x0, sigma[i], c)
        distance = math.sqrt(off @ off + c_huber**2) - c_huber
        assert float(losses.t[n]) == pytest.approx(0.5 / (0.5 + sigma[i + 1]), rel=1e-6)
        assert float(losses.rows[n]) == pytest.approx(distance / (sigma[i + 1] - sigma[i]), rel=1e-4)
        slope = off / (distance + c_huber) * 0.5 * sigma[i + 1] / (0.5 + sigma[i + 1]) / (sigma[i + 1] - sigma[i])
        np.testing.assert_allclose(said.grad[n].numpy(), slope, rtol=1e-3, atol=1e-4 * float(np.abs(slope).max()))
    assert len(seen) > (3 if stage else 1)


@pytest.mark.parametrize("steps", [4, 100, 7001])
def test_bins_double_to_the_last_and_stages_are_equally_long(steps: int) -> None:
    plain, improved = ConsistencyTraining(M=8), ImprovedConsistencyTraining(M=8)
    bins = [2 ** plain.stage(PhaseProgress(step, steps)) for step in range(steps)]
    assert bins == sorted(bins) and (bins[0], bins[-1]) == (1, 8)
    lengths = [bins.count(n) for n in (1, 2, 4, 8)]
    assert sum(lengths) == steps and max(lengths) - min(lengths) <= 1
    assert [improved.bins(PhaseProgress(step, steps)) for step in range(steps)] == [10 * n for n in bins]


def test_the_papers_curriculum_ends_at_1280_bins() -> None:
    """iCT 3.4: N(k) = min(s0 2^floor(k / K'), s1) + 1 levels, K' = floor(K / (log2(s1 / s0) + 1))."""
    objective, steps = ImprovedConsistencyTraining(), 400_000
    part = steps // (round(math.log2(1280 / 10)) + 1)
    for step in (0, part - 1, part, 3 * part, 7 * part - 1, 7 * part, steps - 1):
        assert objective.bins(PhaseProgress(step, steps)) == min(10 * 2 ** (step // part), 1280)


def test_noise_levels_follow_their_law() -> None:
    """In units of the data's deviation they are the paper's: sigma / sigma_data, with sigma_data = 0.5 there."""
    objective = ImprovedConsistencyTraining()
    sigmas = objective.sigmas(1280)
    assert (float(sigmas[0]), float(sigmas[-1])) == pytest.approx((0.002 / 0.5, 80 / 0.5))
    law = objective.probabilities(sigmas)
    assert float(law.sum()) == pytest.approx(1, abs=1e-12)
    normal = stats.norm(-1.1 - math.log(0.5), 2.0)
    mass = np.diff(normal.cdf(np.log(sigmas.numpy())))
    np.testing.assert_allclose(law.numpy(), mass / mass.sum(), rtol=5e-4)  # log_mean has three digits

    rows = 20_000
    x = torch.zeros(rows, 1)
    draw = Draw(Keys(0), 0, rows, slice(0, rows))
    made = objective.targets(Networks(Toy1d()), Batch(x, x), draw, PhaseProgress(7, 8))
    sigma = 1 / made.query.t.double().numpy() - 1
    low, high = normal.cdf(np.log([0.004, 160.0]))

    def cdf(value: np.ndarray) -> np.ndarray:
        return (normal.cdf(np.log(value)) - low) / (high - low)

    assert stats.kstest(sigma, cdf).statistic < 0.015  # rows of a bin lie at its upper end, at most 0.3 % further


class Toy1d:
    """No velocity."""

    def __call__(
        self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance: Tensor | None = None
    ) -> Tensor:
        return torch.zeros_like(x)


class Point(Toy1d):
    """The exact velocity of data that is one point; at t = 1, where every velocity is right, 0."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.point = torch.linspace(-2, 2, WIDTH, dtype=torch.float64)

    def __call__(
        self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance: Tensor | None = None
    ) -> Tensor:
        self.times.append(float(t[0]))
        left = expand(1 - t, x)
        return torch.where(left == 0, 0, (self.point - x) / left.where(left > 0, 1))


@pytest.mark.parametrize("objective", [ConsistencyTraining(), ImprovedConsistencyTraining()], ids=lambda o: o.name)
def test_the_flow_of_a_point_is_a_fixed_point(objective: ConsistencyTraining | ImprovedConsistencyTraining) -> None:
    network = Point()
    noise = batch().x0
    last = PhaseProgress(7, 8)
    given = Batch(network.point.expand(ROWS, WIDTH), noise)
    made = objective.targets(Networks(network, network), given, DRAW, last)
    left = expand(1 - made.query.t, noise)
    own = network(made.query.x_t, made.query.t, made.query.d)
    torch.testing.assert_close(left * made.target, left * own, rtol=0, atol=1e-6)
    assert float(objective.loss(Networks(network, network), given, DRAW, last).rows.max()) < 1e-8


@pytest.mark.parametrize("objective", [ConsistencyTraining(), ImprovedConsistencyTraining()], ids=lambda o: o.name)
def test_targets_carry_no_gradient(objective: ConsistencyTraining | ImprovedConsistencyTraining) -> None:
    class Learned(Toy1d):
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)

        def __call__(self, x: Tensor, t: Tensor, *rest: Tensor | None) -> Tensor:
            return self.scale * x

    network = Learned()
    given = Batch(batch().x1, batch().x0)
    made = objective.targets(Networks(network, network), given, DRAW, PhaseProgress(7, 8))
    assert not made.target.requires_grad
    objective.loss(Networks(network, network), given, DRAW, PhaseProgress(7, 8)).rows.mean().backward()
    assert network.scale.grad is not None and bool(network.scale.grad != 0)


def fresh(n: int) -> Tensor:
    return torch.randn(ROWS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(n))


def sample_consistency(network: Any, noise: Tensor, **options: Any) -> Tensor:
    """Sample with jumps to the data at d = 0."""
    return sample(network, noise, schedule=instantaneous_schedule, **({"renoise": fresh} | options))


def test_one_jump_is_where_the_velocity_points() -> None:
    network, given = Toy.make(3), batch()
    one = sample_consistency(network, given.x0, steps=1, condition=given.condition)
    t = torch.zeros(ROWS)
    torch.testing.assert_close(one, data_from_velocity(given.x0, t, network(given.x0, t, t, given.condition)))


def test_sampler_equals_the_box() -> None:
    network, given = Toy.make(3), batch()
    assert given.condition is not None
    drawn = sample_consistency(network, given.x0, steps=4, condition=given.condition, renoise=fresh)
    for i in range(ROWS):
        x = given.x0[i].numpy()
        for n in range(4):
            x1hat = x + (1 - n / 4) * network.row(x, n / 4, 0, int(given.condition[i]))
            x = (n + 1) / 4 * x1hat + (1 - (n + 1) / 4) * fresh(n)[i].numpy()
        np.testing.assert_allclose(drawn[i].numpy(), x1hat, atol=1e-12)
    again = sample_consistency(network, given.x0, steps=4, condition=given.condition, renoise=fresh)
    assert torch.equal(drawn, again)


@pytest.mark.parametrize("steps", [1, 2, 3, 128])
def test_any_number_of_jumps_ends_at_the_point_and_none_starts_at_the_end(steps: int) -> None:
    network, seen = Point(), []
    drawn = sample_consistency(
        network, batch().x0, steps=steps, renoise=fresh, callback=lambda n, step, x: seen.append((n, step.t))
    )
    torch.testing.assert_close(drawn, network.point.expand(ROWS, WIDTH))
    assert network.times == pytest.approx([n / steps for n in range(steps)])
    assert seen == [(n, n / steps) for n in range(steps)]


def test_improved_samples_start_at_the_largest_noise_that_was_trained() -> None:
    """sigma = 160 is t = 1/161, and 160 z is (160 / 161) z there; the rest of the path has equal steps."""
    asked = []

    class Seen(Point):
        def __call__(self, x: Tensor, t: Tensor, *rest: Tensor | None) -> Tensor:
            asked.append((float(t[0]), x))
            return super().__call__(x, t, t)

    objective, noise = ImprovedConsistencyTraining(), batch().x0
    schedule = objective.schedule(5)
    drawn = sample(Seen(), objective.start(noise, schedule), steps=schedule, renoise=fresh)
    torch.testing.assert_close(drawn, Point().point.expand(ROWS, WIDTH))
    torch.testing.assert_close(asked[0][1], noise * (160 / 161))
    assert [t for t, _ in asked] == pytest.approx([(1 + 32 * n) / 161 for n in range(5)])
    assert schedule[-1].t + schedule[-1].length == pytest.approx(1)


def test_the_states_between_jumps_have_the_marginals_of_the_path() -> None:
    """From the point's own data the network is asked at N(t p, (1 - t)^2), as in training."""
    network, asked = Point(), []

    class Seen(Point):
        def __call__(self, x: Tensor, t: Tensor, *rest: Tensor | None) -> Tensor:
            asked.append((float(t[0]), x))
            return network(x, t, t)

    noise = torch.randn(20_000, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    source = torch.Generator().manual_seed(1)
    sample_consistency(
        Seen(), noise, steps=4, renoise=lambda n: torch.randn(noise.shape, dtype=noise.dtype, generator=source)
    )
    for t, x in asked:
        torch.testing.assert_close(x.mean(0), t * network.point, rtol=0, atol=5 * (1 - t) / 20_000**0.5)
        torch.testing.assert_close(x.std(0), torch.full((WIDTH,), 1 - t, dtype=x.dtype), rtol=0.03, atol=0)


def test_guidance_of_a_jump_is_that_of_its_velocity() -> None:
    network, given = Toy.make(3), batch()
    null = torch.full((ROWS,), CLASSES)
    conditional, unconditional, guided = (
        sample_consistency(network, given.x0, steps=1, condition=c, guidance=w)
        for c, w in ((given.condition, 1.0), (null, 1.0), (given.condition, 2.5))
    )
    torch.testing.assert_close(guided, unconditional + 2.5 * (conditional - unconditional))
    with pytest.raises(ValueError, match="guidance has 2 values for 3 steps"):
        sample_consistency(network, given.x0, steps=3, guidance=[1.0, 2.0], renoise=fresh)
