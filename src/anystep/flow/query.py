"""Where a network is evaluated: its arguments, one row per example."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Query:
    """The arguments of the online network, rows aligned: x_t [B, ...], t and d [B], label and guidance [B] or None."""

    x_t: Tensor
    t: Tensor
    d: Tensor
    label: Tensor | None = None
    guidance: Tensor | None = None
