"""KID is what its definition says, and unbiased."""

import numpy as np
import pytest
import torch

from anystep.evaluation.metrics import kernel
from anystep.evaluation.metrics.kernel import kernel_distance


def by_hand(x: np.ndarray, y: np.ndarray) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    first = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    second = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return first + second - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


@pytest.mark.parametrize("slab", [1, 40, 1 << 23])
def test_it_is_the_sum_over_all_pairs(slab, monkeypatch):
    monkeypatch.setattr(kernel, "SLAB", slab)
    random = np.random.default_rng(0)
    x, y = random.normal(size=(12, 5)), 1 + random.normal(size=(9, 5))
    assert kernel_distance(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(by_hand(x, y), rel=1e-12)


def test_sets_of_one_distribution_are_at_zero_on_average_whatever_their_size():
    random = torch.Generator().manual_seed(0)
    for size in (5, 50):
        sets = torch.randn(400, 2, size, 3, dtype=torch.float64, generator=random)
        found = torch.tensor([kernel_distance(x, y) for x, y in sets])
        assert abs(float(found.mean())) < 4 * float(found.std()) / 20
        assert float(found.min()) < 0
