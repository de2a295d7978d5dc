"""Assignments are optimal, only permute noise, and with per-class transport preserve p(x0 | class)."""

import math
from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from anystep.flow.coupling import optimal_assignment, transport_cost


def solve(cost: Tensor) -> Tensor:
    return torch.from_numpy(linear_sum_assignment(cost.numpy())[1])


def clusters(n: int, seed: int, classes: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Noise, data in narrow clusters at -3 and 3 (and beyond) of the first axis, labels; in the plane."""
    source = torch.Generator().manual_seed(seed)
    x0, x1 = torch.randn(2, n, 2, generator=source, dtype=torch.float64)
    label = torch.randperm(n, generator=source) % classes
    x1 = 0.3 * x1
    x1[:, 0] += 6.0 * label - 3
    return x0, x1, label


def squares(x0: Tensor, x1: Tensor) -> Tensor:
    return (x1[:, None] - x0[None]).square().flatten(2).sum(2)


@pytest.mark.parametrize("shape", [(7,), (3, 4, 4)])
def test_the_plan_costs_what_scipys_does_on_squared_distances(shape: tuple[int, ...]) -> None:
    x0, x1 = torch.randn(2, 40, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    distance = squares(x0, x1)
    rows, columns = linear_sum_assignment(distance.numpy())
    ours = optimal_assignment(x0, x1, solve)
    assert torch.equal(ours, torch.from_numpy(columns))
    assert float((x0[ours] - x1).square().sum()) == pytest.approx(distance.numpy()[rows, columns].sum(), rel=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6])
def test_no_permutation_is_cheaper(n: int) -> None:
    for seed in range(5):
        x0, x1, label = clusters(n, seed)
        for class_cost in (0.0, 2.0):
            cost = squares(x0, x1) + class_cost * (label[:, None] != label)
            best = min(sum(float(cost[i, j]) for i, j in enumerate(each)) for each in permutations(range(n)))
            ours = optimal_assignment(x0, x1, solve, label, class_cost)
            assert float(cost[torch.arange(n), ours].sum()) == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("class_cost", [0.0, 1.5, math.inf])
def test_noise_is_only_permuted(class_cost: float) -> None:
    x0, x1, label = clusters(60, 0, classes=5)
    noise = x0[optimal_assignment(x0, x1, solve, label, class_cost)]
    assert not torch.equal(noise, x0)
    assert torch.equal(noise[noise[:, 0].argsort()], x0[x0[:, 0].argsort()])


def test_an_infinite_class_cost_never_crosses_classes_and_is_optimal_within() -> None:
    x0, x1, label = clusters(100, 1, classes=3)
    ours = optimal_assignment(x0, x1, solve, label, math.inf)
    assert torch.equal(label[ours], label)
    for c in range(3):
        rows = label == c
        best = squares(x0[rows], x1[rows]).numpy()
        assert float((x0[ours] - x1)[rows].square().sum()) == pytest.approx(best[linear_sum_assignment(best)].sum())


def test_a_large_class_cost_is_the_infinite_one() -> None:
    x0, x1, label = clusters(100, 2, classes=3)
    assert torch.equal(
        optimal_assignment(x0, x1, solve, label, 1e6), optimal_assignment(x0, x1, solve, label, math.inf)
    )


def test_the_dearer_the_fewer_crossings_and_the_longer_the_way() -> None:
    x0, x1, label = clusters(300, 3, classes=3)
    costs = [0.0, 1.0, 4.0, 10.0, 20.0, math.inf]
    plans = [optimal_assignment(x0, x1, solve, label, cost) for cost in costs]
    crossings = [int((label[each] != label).sum()) for each in plans]
    ways = [float((x0[each] - x1).square().sum()) for each in plans]
    assert crossings == sorted(crossings, reverse=True) and len(set(crossings)) == len(costs)
    assert crossings[0] > 100 and crossings[-1] == 0
    assert ways == sorted(ways)


def test_larger_pools_are_straighter_and_near_the_distance_of_the_distributions() -> None:
    """Normal data of std s: apart D (1 + s^2) when drawn independently, D (1 - s)^2 (W2 distance) at best."""
    source = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(2, 512, 2, generator=source, dtype=torch.float64)
    x1 = 0.5 * x1
    mean = []
    for pool in (1, 4, 16, 64, 256, 512):
        pairs = list(zip(x0.split(pool), x1.split(pool), strict=True))
        mean.append(
            float(torch.cat([(a[optimal_assignment(a, b, solve)] - b).square().sum(1) for a, b in pairs]).mean())
        )
    assert mean == sorted(mean, reverse=True)
    assert mean[0] == pytest.approx(2 * 1.25, rel=0.05)
    assert mean[-1] == pytest.approx(2 * 0.25, rel=0.2)


def of_class_1(class_cost: float) -> np.ndarray:
    """First coordinates of the noise that class 1 is given, over 60 pools of 128 rows."""
    drawn = [clusters(128, seed) for seed in range(60)]
    return torch.cat([x0[optimal_assignment(x0, x1, solve, c, class_cost)][c == 1, 0] for x0, x1, c in drawn]).numpy()


def test_transport_without_classes_skews_the_noise_of_a_class_and_per_class_does_not() -> None:
    """Of two clusters each takes its half of the normal, whose mean is sqrt(2 / pi) = 0.80 sigma away."""
    free, per_class = of_class_1(0.0), of_class_1(math.inf)
    assert free.mean() == pytest.approx(math.sqrt(2 / math.pi), abs=0.03)
    assert abs(per_class.mean()) < 3 / len(per_class) ** 0.5
    assert stats.kstest(free, "norm").pvalue < 1e-50
    assert stats.kstest(per_class, "norm").pvalue > 0.01
    assert abs(per_class.mean()) < of_class_1(4.0).mean() < free.mean()


def test_costs_are_float32_at_least() -> None:
    x0, x1 = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = -2 * x1.double() @ x0.double().T
    cost = transport_cost(x0, x1)
    assert cost.dtype == torch.float32
    torch.testing.assert_close(cost.double(), exact, rtol=1e-6, atol=1e-6)


def test_an_infinite_cost_is_one_where_classes_differ_only() -> None:
    x0, x1, label = clusters(20, 0)
    cost = transport_cost(x0, x1, label, math.inf)
    assert torch.equal(cost.isinf(), label[:, None] != label)
    assert not cost.isnan().any()


@pytest.mark.parametrize("wrong", [lambda cost: cost.argmin(1), lambda cost: torch.arange(len(cost)) + 1])
def test_a_solver_that_uses_noise_twice_is_found_out(wrong: Callable[[Tensor], Tensor]) -> None:
    x0, x1, _ = clusters(50, 0)
    with pytest.raises(ValueError, match="assignment of 50 examples is no permutation"):
        optimal_assignment(x0, x1, wrong)
