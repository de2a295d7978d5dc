"""The solver finds the least cost."""

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from anystep.flow.coupling import optimal_assignment
from anystep.training.coupling import solve


def costs(n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n", [1, 2, 50, 200])
def test_the_total_is_scipys(n: int, dtype: torch.dtype) -> None:
    """Float64 arithmetic on the very costs that came in, whatever their type."""
    cost = costs(n, n, dtype)
    exact = cost.double().numpy()
    columns = solve(cost)
    assert columns.dtype == torch.int64
    assert columns.sort().values.tolist() == list(range(n))
    ours = exact[np.arange(n), columns.numpy()].sum()
    assert ours == pytest.approx(exact[linear_sum_assignment(exact)].sum(), rel=1e-12)


def test_ties_are_broken_alike_every_time() -> None:
    cost = costs(60).round()
    assert all(torch.equal(solve(cost), solve(cost.clone())) for _ in range(3))
    assert solve(torch.zeros(20, 20)).sort().values.tolist() == list(range(20))


def test_no_permutation_costs_less() -> None:
    for seed in range(20):
        cost = costs(6, seed)
        totals = [sum(float(cost[row, column]) for row, column in enumerate(order)) for order in permutations(range(6))]
        assert float(cost[torch.arange(6), solve(cost)].sum()) == pytest.approx(min(totals), rel=1e-12)


def test_the_plan_of_random_noise_is_that_of_the_costs_as_they_are() -> None:
    x0, x1 = torch.randn(2, 200, 12, generator=torch.Generator().manual_seed(0))
    plans = (
        optimal_assignment(x0, x1, solve),
        optimal_assignment(x0, x1, lambda cost: torch.from_numpy(linear_sum_assignment(cost.numpy())[1])),
    )
    assert torch.equal(*plans)


def test_a_gradient_is_no_hindrance_and_no_part_of_it() -> None:
    cost = costs(10).requires_grad_()
    assert not solve(cost).requires_grad


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_costs_that_are_not_finite_are_refused(bad: float) -> None:
    cost = costs(5)
    cost[2, 3] = bad
    with pytest.raises(ValueError, match="needs finite costs"):
        solve(cost)
