"""AdamW and its learning rate as a pure function of the step."""

from inspect import unwrap
from typing import Any

import torch
from torch import nn, optim

from anystep.run.config import OptimizerConfig


class AdamW(optim.AdamW):
    """torch's AdamW, which starts without importing `torch._dynamo`.

    torch decorates these methods for programs that compile the optimizer itself, and the decorators import
    `torch._dynamo` when they are first called, which takes longer than the import of torch. A run compiles its networks
    only.
    """

    add_param_group = unwrap(optim.AdamW.add_param_group)
    zero_grad = unwrap(optim.AdamW.zero_grad)
    step = torch.no_grad()(unwrap(optim.AdamW.step))


def build(network: nn.Module, loss: nn.Module, config: OptimizerConfig) -> AdamW:
    """Return AdamW over the network's parameters, decayed alike (P1), and what ``loss`` learns, not decayed."""
    groups: list[dict[str, Any]] = [{"params": list(network.parameters())}]
    if learned := list(loss.parameters()):
        groups.append({"params": learned, "weight_decay": 0.0})
    return AdamW(
        groups,
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        foreach=True,
    )


def learning_rate(step: int, optimizer: OptimizerConfig, batch: int, first: int, last: int) -> float:
    """Return the rate of update n = 0, 1, ... in the phase of updates ``first`` ... ``last - 1``.

    It rises linearly at the beginning of the run, and falls linearly to 0 at the end of every phase.
    """
    seen = (step + 1) * batch
    rising = min(1.0, seen / optimizer.warmup) if optimizer.warmup else 1.0
    left = 1 - (step - first) / (last - first)
    falling = min(1.0, left / optimizer.decay) if optimizer.decay else 1.0
    return optimizer.lr * min(rising, falling)
