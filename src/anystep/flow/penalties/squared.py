"""Penalties of a regression, one value a row, in float32 whatever the network computed in."""

from torch import Tensor


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean over a row's elements of the squared error, in float32 whatever the network computed in."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)


def pseudo_huber(prediction: Tensor, target: Tensor, c: float) -> Tensor:
    """Return ``sqrt(|prediction - target|^2 + c^2) - c``, the norm over all of a row's elements (iCT, section 3.3).

    Squared error over 2c for errors well below ``c`` > 0, the norm itself well above. iCT has c = 0.00054 sqrt(dim).
    """
    square = (prediction.float() - target.float()).square().flatten(1).sum(1)
    return square / ((square + c * c).sqrt() + c)  # the same, without the difference of two nearly equal numbers
