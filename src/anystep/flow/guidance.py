"""Classifier-free guidance. One convention: the scale ``W``, where W = 1 means none.

``v_W = v_null + W (v_label - v_null)``. The iSM paper's own ``w`` is the increment ``W - 1``.
"""

import torch
from torch import Tensor

from anystep.flow.network import Network, null_label


def guide(v_label: Tensor, v_null: Tensor, scale: float) -> Tensor:
    """Return ``v_null + scale (v_label - v_null)``."""
    return v_null + scale * (v_label - v_null)


def guided_velocity(network: Network, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None, scale: float) -> Tensor:
    """Return the guided velocity, with the labelled and the null rows in one forward pass of 2B rows.

    ``scale = 1`` makes the plain pass of B rows, ``scale = 0`` the null pass. Raises ValueError when guidance is asked
    of an unconditional network or without labels.
    """
    if scale == 1:
        return network(x, t, d, label)
    null = null_label(network)
    if label is None:
        raise ValueError("guidance needs labels: pass `label` or set guidance to 1")
    nulls = torch.full_like(label, null)
    if scale == 0:
        return network(x, t, d, nulls)
    both = network(torch.cat([x, x]), torch.cat([t, t]), torch.cat([d, d]), torch.cat([label, nulls]))
    v_label, v_null = both.chunk(2)
    return guide(v_label, v_null, scale)
