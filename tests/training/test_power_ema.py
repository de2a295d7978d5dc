"""Power-function averages (Karras et al. 2024, section 3): what parameters weigh, and any width after training."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import Tensor, nn

from anystep.core.random import Keys
from anystep.flow.condition import UNCONDITIONAL
from anystep.networks import MLPConfig
from anystep.objectives import Batch, Draw, FlowMatching, Networks, PhaseProgress
from anystep.run.averages import Profile, exponent, mixture, overlaps, reconstruct
from anystep.training.ema import Ema, PowerEma

DOCS = Path(__file__).parents[2] / "docs"


def relative_width(gamma: float) -> float:
    """The standard deviation, over t, of the profile ``tau^gamma`` on [0, t] (section 3.1)."""
    return float((gamma + 1) ** 0.5 / ((gamma + 2) * (gamma + 3) ** 0.5))


def test_the_widths_of_the_paper_have_its_powers() -> None:
    """0.05 and 0.1 are gamma 16.97 and 6.94; a plain mean, gamma 0, is 1 / sqrt(12) wide."""
    assert exponent(0.05) == pytest.approx(16.97, abs=0.005)
    assert exponent(0.10) == pytest.approx(6.94, abs=0.005)
    assert exponent(12**-0.5) == pytest.approx(0, abs=1e-9) and relative_width(0) == pytest.approx(12**-0.5)
    for sigma_rel in (0.001, 0.02, 0.07, 0.2, 0.288):
        assert relative_width(exponent(sigma_rel)) == pytest.approx(sigma_rel, rel=1e-9)


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.25])
def test_the_width_is_the_standard_deviation_of_the_profile(sigma_rel: float) -> None:
    gamma = exponent(sigma_rel)

    def moment(k: int) -> float:
        return float(integrate.quad(lambda tau: tau**k * (gamma + 1) * tau**gamma, 0, 1)[0])

    assert math.sqrt(moment(2) - moment(1) ** 2) == pytest.approx(sigma_rel, rel=1e-6)


class One(nn.Module):
    """A network of one parameter and one buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def put(self, value: float) -> "One":
        with torch.no_grad():
            self.value.fill_(value)
        self.count.fill_(int(value))  # type: ignore[operator]
        return self


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.25])
def test_parameters_weigh_what_the_profile_says(sigma_rel: float) -> None:
    """After t updates, update tau weighs the integral of the profile over (tau - 1, tau]: the sum telescopes."""
    network, updates = One().put(-1e9), 40
    values = np.random.default_rng(0).normal(size=updates)
    average = PowerEma(network, sigma_rel)
    for n, value in enumerate(values):
        average.update(network.put(value), n)
        edges = (np.arange(n + 2) / (n + 1)) ** (exponent(sigma_rel) + 1)
        assert float(average.network.value) == pytest.approx(float(np.diff(edges) @ values[: n + 1]), rel=1e-12)
    assert average.network.count == int(values[-1])


def test_overlaps_are_integrals_of_products() -> None:
    for a, b in (((100, 0.05), (100, 0.1)), ((80, 0.1), (100, 0.05)), ((7, 0.2), (100, 0.2)), ((100, 0.1), (100, 0.1))):
        (t_a, gamma_a), (t_b, gamma_b) = ((t, exponent(sigma)) for t, sigma in (a, b))

        def product(tau: float, t_a=t_a, t_b=t_b, gamma_a=gamma_a, gamma_b=gamma_b) -> float:
            one = (gamma_a + 1) * tau**gamma_a / t_a ** (gamma_a + 1)
            return float(one * (gamma_b + 1) * tau**gamma_b / t_b ** (gamma_b + 1))

        exact = integrate.quad(product, 0, min(t_a, t_b))[0]
        assert overlaps([Profile(*a)], [Profile(*b)])[0, 0] == pytest.approx(exact, rel=1e-8)
        assert overlaps([Profile(*b)], [Profile(*a)])[0, 0] == pytest.approx(exact, rel=1e-8)


def test_a_long_run_with_many_snapshots_stays_within_numbers() -> None:
    stored = [Profile(n, sigma) for n in range(5_000, 1_000_001, 5_000) for sigma in (0.05, 0.1)]
    found = mixture(stored, Profile(1_000_000, 0.07))
    assert math.fsum(found.shares.values()) == pytest.approx(1, abs=1e-12)
    assert max(map(abs, found.shares.values())) < 2
    assert found.gain < 10  # rounding of float32 tensors is not blown up
    assert len(found.shares) < 330  # of 400: the others are below a float32 sum's rounding


@pytest.mark.parametrize("wanted", range(6))
def test_a_stored_profile_is_reconstructed_exactly(wanted: int) -> None:
    stored = [Profile(n, sigma) for n in (50, 75, 100) for sigma in (0.05, 0.1)]
    found = mixture(stored, stored[wanted])
    assert (found.shares, found.mismatch, found.gain) == ({stored[wanted]: 1.0}, 0.0, 1.0)
    tensors = {p: {"w": torch.randn(5, generator=torch.Generator().manual_seed(i))} for i, p in enumerate(stored)}
    assert torch.equal(reconstruct(tensors.__getitem__, found.shares)["w"], tensors[stored[wanted]]["w"])


def test_the_mixture_is_the_nearest_whose_shares_add_up_to_one() -> None:
    """No small change that keeps the sum comes nearer, on a fine grid of the time of training."""
    stored, wanted = [Profile(n, s) for n in (60, 80, 100) for s in (0.05, 0.1)], Profile(100, 0.15)
    tau = (np.arange(100_000) + 0.5) / 1000

    def profile(p: Profile) -> np.ndarray:
        gamma = exponent(p.sigma_rel)
        return np.where(tau <= p.updates, (gamma + 1) * tau**gamma / float(p.updates) ** (gamma + 1), 0.0)

    columns, goal = np.stack([profile(p) for p in stored], axis=1), profile(wanted)
    found = mixture(stored, wanted)
    share = np.array([found.shares[profile] for profile in stored])
    best = float(np.square(columns @ share - goal).mean())
    assert found.mismatch == pytest.approx((best / float(np.square(goal).mean())) ** 0.5, rel=1e-3)
    rng = np.random.default_rng(0)
    for _ in range(200):
        change = rng.normal(size=6) * 10 ** rng.uniform(-3, 0)
        changed = share + change - change.mean()
        assert float(np.square(columns @ changed - goal).mean()) > best


def test_shares_that_are_left_out_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than float32 rounds, of parameters as large as they get; copies of no share are not asked for."""
    stored, wanted = [Profile(n, s) for n in range(5, 1001, 5) for s in (0.05, 0.1)], Profile(1000, 0.03)
    rng = torch.Generator().manual_seed(0)
    tensors = {profile: {"w": torch.rand(50, generator=rng, dtype=torch.float64)} for profile in stored}
    found = mixture(stored, wanted)
    part = reconstruct({profile: tensors[profile] for profile in found.shares}.__getitem__, found.shares)["w"]
    monkeypatch.setattr("anystep.run.averages.NEGLIGIBLE", 0.0)
    every = mixture(stored, wanted)
    assert len(found.shares) < 0.6 * len(every.shares) and len(every.shares) == len(stored)
    assert float((part - reconstruct(tensors.__getitem__, every.shares)["w"]).abs().max()) < 2**-23
    assert found.mismatch == pytest.approx(every.mismatch, rel=1e-3)


def test_rounding_counts_as_often_as_the_shares_say() -> None:
    """Copies that are off by one part in 2^24, as float32 is, at random, make a very narrow average worse by far."""
    stored, rng = [Profile(n, s) for n in range(10, 1001, 10) for s in (0.05, 0.1)], np.random.default_rng(0)
    off = {profile: {"w": torch.from_numpy(rng.uniform(-1, 1, 2000))} for profile in stored}
    gains, errors = [], []
    for width in (0.07, 0.02, 0.01, 0.005):
        found = mixture(stored, Profile(1000, width))
        gains.append(found.gain)
        errors.append(float(reconstruct(off.__getitem__, found.shares)["w"].square().mean().sqrt()))
    assert gains == pytest.approx([1.6, 41.2, 178.8, 532.5], rel=0.05)
    assert all(0.1 < error / gain < 1 for error, gain in zip(errors, gains, strict=True))


#: copies of 0.05 and 0.1, evenly spaced over the run; the table of docs/training.md
TABLE = {
    5: [0.310, 0.050, 0.027, 0.073, 0.160],
    10: [0.205, 0.022, 0.009, 0.022, 0.053],
    20: [0.087, 0.007, 0.002, 0.006, 0.016],
    40: [0.027, 0.002, 0.001, 0.002, 0.004],
}


@pytest.mark.parametrize("count", TABLE)
def test_how_near_other_widths_are_by_the_number_of_copies(count: int) -> None:
    """Whatever the length of the run."""
    for whole in (400, 400_000):
        stored = [Profile(n * whole // count, s) for n in range(1, count + 1) for s in (0.05, 0.1)]
        found = [mixture(stored, Profile(whole, wanted)).mismatch for wanted in (0.02, 0.04, 0.07, 0.15, 0.2)]
        assert found == pytest.approx(TABLE[count], abs=0.0006)
    (row,) = re.findall(rf"^\| {count} \|(.*)\|$", (DOCS / "training.md").read_text(), re.MULTILINE)
    assert [float(cell) for cell in row.split("|")] == TABLE[count]


@pytest.mark.parametrize(
    ("count", "widths", "wanted", "off"),
    [
        (5, (0.05, 0.1), 0.2886, 0.596),
        (10, (0.05, 0.1), 0.2886, 0.394),
        (20, (0.05, 0.1), 0.2886, 0.269),
        (5, (0.05, 0.1, 0.25), 0.2886, 0.157),
        (5, (0.05, 0.1, 0.25), 0.2, 0.007),
    ],
)
def test_a_wide_average_wants_a_wide_one_kept_more_than_more_copies(
    count: int, widths: tuple[float, ...], wanted: float, off: float
) -> None:
    """The numbers of docs/training.md."""
    stored = [Profile(1000 * n, s) for n in range(1, count + 1) for s in widths]
    assert mixture(stored, Profile(1000 * count, wanted)).mismatch == pytest.approx(off, abs=0.0006)


def test_a_decay_that_warms_up_is_a_power_average_until_it_is_reached() -> None:
    """0.995 at 938 updates: what the parameters weigh is as wide as gamma 8 has it, not as the formula says."""
    rho, updates = 0.995, 938
    average = Ema(One(), rho)
    tau, weights = np.arange(updates + 1), np.zeros(updates + 1)
    weights[0] = 1  # where the average began
    for n in range(updates):
        decay = average.decay_at(n)
        weights *= decay
        weights[n + 1] = 1 - decay
    mean = weights @ tau
    width = math.sqrt(weights @ (tau - mean) ** 2) / updates
    assert relative_width(8) == pytest.approx(0.0905, abs=5e-5)
    assert width == pytest.approx(0.0909, abs=5e-5)
    assert math.sqrt(rho) / (1 - rho) / updates == pytest.approx(0.213, abs=5e-4)


@pytest.mark.parametrize(("rho", "updates"), [(0.9, 100), (0.99, 1000), (0.999, 20_000)])
def test_a_constant_decay_has_the_width_that_the_docs_say(rho: float, updates: int) -> None:
    """sqrt(rho) / ((1 - rho) t), where t is many times 1 / (1 - rho): a power average as wide spreads as far."""
    tau = np.arange(1, updates + 1)
    weights = (1 - rho) * rho ** (updates - tau)
    weights[0] += rho**updates
    mean = weights @ tau
    width = math.sqrt(weights @ (tau - mean) ** 2) / updates
    assert width == pytest.approx(math.sqrt(rho) / (1 - rho) / updates, rel=2e-3)


def flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


def test_another_width_of_a_real_run_is_reconstructed() -> None:
    """Within 1e-3 relative (2e-4 here) of the average that was tracked; 12 snapshots of two widths in 360 updates."""
    torch.manual_seed(0)
    network = MLPConfig(hidden=32, depth=1).build((2,), UNCONDITIONAL)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    stored, widths, others, updates = {}, (0.05, 0.1), (0.06, 0.075, 0.12, 0.15), 360
    averages = {sigma: PowerEma(network, sigma) for sigma in (*widths, *others)}
    for step in range(updates):
        draw = Draw(Keys(0), step, 64, slice(0, 64))
        batch = Batch(1.5 + 0.3 * draw.normal("data", (2,)), draw.normal("noise", (2,)))
        FlowMatching().loss(Networks(network), batch, draw, PhaseProgress(step, updates)).rows.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        for average in averages.values():
            average.update(network, step)
        if (step + 1) % 30 == 0:
            for sigma in widths:
                state = averages[sigma].network.state_dict()
                stored[Profile(step + 1, sigma)] = {name: tensor.clone() for name, tensor in state.items()}
    last = flat(dict(network.state_dict()))
    for sigma in others:
        exact = flat(dict(averages[sigma].network.state_dict()))
        shares = mixture(list(stored), Profile(updates, sigma)).shares
        error = flat(reconstruct(stored.__getitem__, shares)) - exact
        assert float(error.norm() / exact.norm()) < 2e-4, sigma
        assert float(error.norm() / (last - exact).norm()) < 5e-3  # next to how far the average is from the last
