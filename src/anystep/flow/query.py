"""The inputs that a network is evaluated at."""

from dataclasses import dataclass

from torch import Tensor

from anystep.flow.condition import Condition


@dataclass(frozen=True)
class Query:
    """The inputs of the online network: x_t [B, ...], t and d [B], condition, guidance [B]."""

    x_t: Tensor
    t: Tensor
    d: Tensor
    condition: Condition = None
    guidance: Tensor | None = None
