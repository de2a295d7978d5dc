"""The squared error is a mean over a row, in float32 whatever comes in."""

import numpy as np
import torch

from anystep.flow.loss import squared_error


def test_half_precision_inputs_are_compared_in_float32() -> None:
    """bfloat16 has 8 bits: 256 and 1 squared and averaged there would lose what float64 arithmetic keeps."""
    generator = torch.Generator().manual_seed(0)
    prediction, target = (100 * torch.randn(2, 4, 3, 5, generator=generator)).bfloat16()
    exact = np.mean((prediction.double().numpy() - target.double().numpy()) ** 2, axis=(1, 2))
    rows = squared_error(prediction, target)
    assert rows.dtype == torch.float32
    np.testing.assert_allclose(rows.numpy(), exact, rtol=1e-6)


def test_a_row_does_not_see_the_others() -> None:
    target = torch.zeros(3, 8)
    prediction = torch.tensor([1.0, float("inf"), 2.0])[:, None].expand(3, 8)
    assert squared_error(prediction, target).tolist() == [1.0, float("inf"), 4.0]
