"""Where a network is evaluated: its arguments, one row per example."""

from dataclasses import dataclass

from torch import Tensor

from anystep.flow.condition import Condition


@dataclass(frozen=True)
class Query:
    """The arguments of the online network, rows aligned: x_t [B, ...], t and d [B], condition, guidance [B]."""

    x_t: Tensor
    t: Tensor
    d: Tensor
    condition: Condition = None
    guidance: Tensor | None = None
