"""AdamW over everything that a run trains."""

from inspect import unwrap
from typing import Any

import torch
from torch import nn, optim

from anystep.run.config import OptimizerConfig


class AdamW(optim.AdamW):
    """torch's AdamW without the import of `torch._dynamo`.

    torch decorates these methods for programs that compile the optimizer itself. The decorators import `torch._dynamo`
    when they are first called, which takes longer than the import of torch. A run compiles its networks only.
    """

    add_param_group = unwrap(optim.AdamW.add_param_group)
    zero_grad = unwrap(optim.AdamW.zero_grad)
    step = torch.no_grad()(unwrap(optim.AdamW.step))


def build_optimizer(network: nn.Module, loss: nn.Module, config: OptimizerConfig) -> AdamW:
    """Return AdamW over the network's parameters, with weight decay on all of them (Frans et al. 2024), and over the
    parameters of ``loss``, without."""
    groups: list[dict[str, Any]] = [{"params": list(network.parameters())}]
    if learned := list(loss.parameters()):
        groups.append({"params": learned, "weight_decay": 0.0})
    return AdamW(
        groups, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, foreach=True
    )
