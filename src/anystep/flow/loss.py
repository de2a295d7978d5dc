"""Penalties of a regression, one value a row."""

from torch import Tensor


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean over a row's elements of the squared error, in float32 whatever the network computed in."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)
