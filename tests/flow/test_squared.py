"""Penalties look at one example at a time, in float32 whatever comes in."""

import numpy as np
import pytest
import torch

from anystep.flow.penalties.pseudo_huber import pseudo_huber
from anystep.flow.penalties.squared import squared_error


def test_half_precision_inputs_are_compared_in_float32() -> None:
    """bfloat16 has 8 bits: 256 and 1 squared and averaged there would lose what float64 arithmetic keeps."""
    generator = torch.Generator().manual_seed(0)
    prediction, target = (100 * torch.randn(2, 4, 3, 5, generator=generator)).bfloat16()
    exact = np.mean((prediction.double().numpy() - target.double().numpy()) ** 2, axis=(1, 2))
    rows = squared_error(prediction, target)
    assert rows.dtype == torch.float32
    np.testing.assert_allclose(rows.numpy(), exact, rtol=1e-6)


def test_an_example_does_not_see_the_others() -> None:
    target = torch.zeros(3, 8)
    prediction = torch.tensor([1.0, float("inf"), 2.0])[:, None].expand(3, 8)
    assert squared_error(prediction, target).tolist() == [1.0, float("inf"), 4.0]


def test_pseudo_huber_is_its_formula_over_the_whole_row() -> None:
    prediction, target = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    error = prediction.double().numpy() - target.double().numpy()
    exact = np.sqrt((error**2).sum((1, 2)) + 0.7**2) - 0.7
    rows = pseudo_huber(prediction, target, 0.7)
    assert rows.dtype == torch.float32
    np.testing.assert_allclose(rows.numpy(), exact, rtol=1e-6)


@pytest.mark.parametrize("error", [1e-6, 1e-4, 1e3])
def test_pseudo_huber_is_a_parabola_near_zero_and_the_norm_far_away(error: float) -> None:
    """And keeps its digits where sqrt(e^2 + c^2) - c would be the difference of two equal float32 numbers."""
    c = 0.03
    (row,) = pseudo_huber(torch.tensor([[error, 0.0]]), torch.zeros(1, 2), c)
    limit = error**2 / (2 * c) if error < c else error - c
    assert float(row) == pytest.approx(limit, rel=1e-5)


def test_pseudo_huber_has_a_gradient_where_nothing_is_wrong() -> None:
    prediction = torch.zeros(2, 3, requires_grad=True)
    pseudo_huber(prediction, torch.tensor([[0.0] * 3, [4.0] * 3]), 1e-3).sum().backward()
    assert prediction.grad is not None
    torch.testing.assert_close(prediction.grad, torch.tensor([[0.0] * 3, [-1 / 3**0.5] * 3]))
