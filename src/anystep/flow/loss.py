"""Penalties of a regression, one value a row."""

from typing import Protocol

from torch import Tensor


class Penalty(Protocol):
    """Maps prediction and target [B, ...] to one non-negative value a row, [B]."""

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the penalty of each row, float32 [B]."""


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean over a row's elements of the squared error, in float32 whatever the network computed in."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)
