"""The solver that is installed finds the least cost."""

import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from anystep.flow.coupling import optimal_assignment
from anystep.training.coupling import solve, solver


@pytest.fixture(params=["scipy", "lapx"])
def package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each of the two solvers in turn."""
    if request.param == "scipy":
        monkeypatch.setitem(sys.modules, "lap", None)  # as if it were not installed
    else:
        pytest.importorskip("lap")
    solver.cache_clear()
    yield request.param
    solver.cache_clear()


def costs(n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n", [1, 2, 50, 200])
def test_the_total_is_scipys(package: str, n: int, dtype: torch.dtype) -> None:
    """Float64 arithmetic on the very costs that came in, whatever their type."""
    assert solver()[0] == package
    cost = costs(n, n, dtype)
    exact = cost.double().numpy()
    columns = solve(cost)
    assert columns.dtype == torch.int64
    assert columns.sort().values.tolist() == list(range(n))
    ours = exact[np.arange(n), columns.numpy()].sum()
    assert ours == pytest.approx(exact[linear_sum_assignment(exact)].sum(), rel=1e-12)


def test_ties_are_broken_alike_every_time(package: str) -> None:
    cost = costs(60).round()
    assert all(torch.equal(solve(cost), solve(cost.clone())) for _ in range(3))
    assert solve(torch.zeros(20, 20)).sort().values.tolist() == list(range(20))


def test_solvers_agree_on_plans_of_random_noise() -> None:
    pytest.importorskip("lap")
    x0, x1 = torch.randn(2, 200, 12, generator=torch.Generator().manual_seed(0))
    plans = (
        optimal_assignment(x0, x1, solve),
        optimal_assignment(x0, x1, lambda cost: torch.from_numpy(linear_sum_assignment(cost.numpy())[1])),
    )
    assert torch.equal(*plans)


def test_a_gradient_is_no_hindrance_and_no_part_of_it(package: str) -> None:
    cost = costs(10).requires_grad_()
    assert not solve(cost).requires_grad


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_costs_that_are_not_finite_are_refused(package: str, bad: float) -> None:
    cost = costs(5)
    cost[2, 3] = bad
    with pytest.raises(ValueError, match="needs finite costs"):
        solve(cost)
