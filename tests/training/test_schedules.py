"""Moving averages and the learning rate, against their closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from anystep.objectives import FlowMatching
from anystep.run.config import OptimizerConfig, TrainingConfig
from anystep.run.plan import Segment
from anystep.training.ema import Ema


def averaged(values: np.ndarray, decay: float, warmup: bool) -> float:
    """The average of a one-parameter network that takes these values, the first of them at the start."""
    network = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(network.weight, float(values[0]))
    ema = Ema(network, decay, warmup)
    for update, value in enumerate(values[1:]):
        nn.init.constant_(network.weight, float(value))
        ema.update(network, update)
    return float(ema.network.weight)


VALUES = np.random.default_rng(0).normal(size=40)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.97])
def test_a_constant_decay_weighs_the_past_geometrically(decay: float) -> None:
    n = len(VALUES) - 1
    weights = np.array([decay**n, *((1 - decay) * decay ** (n - k) for k in range(1, n + 1))])
    assert weights.sum() == pytest.approx(1)
    assert averaged(VALUES, decay, warmup=False) == pytest.approx(weights @ VALUES, rel=1e-12)


def test_warm_up_forgets_the_start_as_a_polynomial() -> None:
    """The start's weight after n updates is the product of (1 + k)/(10 + k): 9! n!/(n + 9)!."""
    n = len(VALUES) - 1
    start = math.factorial(9) * math.factorial(n) / math.factorial(n + 9)
    assert averaged(np.array([1.0, *np.zeros(n)]), 0.9999, warmup=True) == pytest.approx(start, rel=1e-9)


def test_warm_up_ends_at_the_decay() -> None:
    ema = Ema(nn.Linear(1, 1), 0.9)
    decays = [ema.decay_at(n) for n in range(200)]
    assert decays[0] == 0.1
    assert decays == sorted(decays)
    assert decays.index(0.9) == 80  # (1 + n)/(10 + n) = 0.9


def test_an_average_copies_buffers_and_takes_no_gradient() -> None:
    network = nn.BatchNorm1d(2)
    ema = Ema(network, 0.99)
    network(torch.randn(8, 2))
    ema.update(network, 0)
    assert torch.equal(ema.network.running_mean, network.running_mean) and int(ema.network.num_batches_tracked) == 1
    assert not any(p.requires_grad for p in ema.network.parameters()) and not ema.network.training


def rates(batch: int = 50, images: int = 1000, **optimizer: float) -> list[float]:
    training = TrainingConfig(images=images, batch=batch)
    config = OptimizerConfig(lr=2.0, **optimizer)  # type: ignore[arg-type]
    segment = Segment(FlowMatching().phases()[0], 0, training.steps)
    return [segment.learning_rate(step, config, batch) for step in range(training.steps)]


def test_without_warm_up_and_decay_the_rate_is_constant() -> None:
    assert set(rates()) == {2.0}


def test_warm_up_reaches_the_rate_after_its_images_whatever_the_batch() -> None:
    """Update n ends at (n + 1) batch images, and its rate is that share of the warm-up's."""
    for batch in (25, 50):
        row = rates(batch, warmup=500)
        assert row[500 // batch - 1 :] == [2.0] * (1000 // batch - 500 // batch + 1)
        assert row[: 500 // batch] == pytest.approx(np.linspace(0, 2, 500 // batch + 1)[1:])


def test_decay_falls_linearly_to_zero_just_after_the_last_update() -> None:
    row = rates(decay=0.5)
    assert row[:11] == [2.0] * 11
    assert row[10:] == pytest.approx(np.linspace(2, 0, 11)[:-1])
    assert rates(decay=1.0) == pytest.approx(np.linspace(2, 0, 21)[:-1])


def test_rates_are_positive_in_a_run_of_one_update() -> None:
    assert rates(images=1, warmup=10, decay=1.0) == [2.0]
