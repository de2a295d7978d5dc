"""Classifier-free guidance. One convention: the scale ``W``, where W = 1 means none.

``v_W = v_null + W (v_label - v_null)``. The iSM paper's own ``w`` is the increment ``W - 1``. A network that takes W as
an input says ``v_W`` itself; any other is asked twice.
"""

import torch
from torch import Tensor

from anystep.core.errors import UsageError
from anystep.flow.network import Network, null_label, takes_guidance
from anystep.flow.path import expand


def guide(v_label: Tensor, v_null: Tensor, scale: float | Tensor) -> Tensor:
    """Return ``v_null + scale (v_label - v_null)``; ``scale`` is W, one for all rows or one a row, [B]."""
    by = expand(scale, v_null) if isinstance(scale, Tensor) else scale
    return v_null + by * (v_label - v_null)


def in_interval(scale: float | Tensor, t: Tensor, start: float) -> Tensor:
    """Return W where ``t >= start`` and 1, no guidance, before: interval guidance (METHODS 9.3). ``t``: [B]."""
    return torch.where(t >= start, scale, 1.0)


def guided_velocity(network: Network, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None, scale: float) -> Tensor:
    """Return the guided velocity, with the labelled and the null rows in one forward pass of 2B rows.

    ``scale = 1`` makes the plain pass of B rows, ``scale = 0`` the null pass. A network that takes W is told it, in one
    pass of B rows; null rows, which no guidance changes, are asked with W = 1. Raises ValueError when guidance is asked
    of an unconditional network or without labels.
    """
    if scale == 1:
        return network(x, t, d, label)
    null = null_label(network)
    if label is None:
        raise UsageError("guidance needs labels: pass `label` or set guidance to 1")
    nulls = torch.full_like(label, null)
    if scale == 0:
        return network(x, t, d, nulls)
    if takes_guidance(network):
        return network(x, t, d, label, torch.full_like(t, scale).masked_fill(label == null, 1.0))
    both = network(torch.cat([x, x]), torch.cat([t, t]), torch.cat([d, d]), torch.cat([label, nulls]))
    v_label, v_null = both.chunk(2)
    return guide(v_label, v_null, scale)
