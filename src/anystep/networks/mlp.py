"""A residual MLP for vectors [B, D]: two-dimensional toys, Gaussians, anything small.

There is no norm between input and output, so the network is linear in x to first order and can follow a linear
velocity far from the data; sharp edges come from the width. Each block is scaled and shifted by (t, d, condition).
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.core.errors import UsageError
from anystep.flow.condition import Condition, ConditionSpec
from anystep.networks.base import VelocityNetwork, VelocityNetworkConfig
from anystep.networks.blocks import xavier_, zero_
from anystep.networks.embeddings import Conditioning


@dataclass(frozen=True)
class MLPConfig(VelocityNetworkConfig):
    """The hyper-parameters of an MLP. Raises UsageError naming the field when a value is out of range."""

    name: ClassVar[str] = "mlp"

    hidden: Annotated[int, Ge(1)] = 256
    """Width of every layer."""
    depth: Annotated[int, Ge(1)] = 4
    """Number of residual blocks, two linear layers each."""

    def build(self, shape: tuple[int, ...], conditions: ConditionSpec, M: int = 128) -> "MLP":
        """Return the network for vectors of ``shape`` (D,); raises UsageError for any other number of axes."""
        return MLP(self, shape, conditions, M)


class MLP(VelocityNetwork):
    """Vectors [B, D] in, velocity [B, D] out."""

    def __init__(self, config: MLPConfig, shape: tuple[int, ...], conditions: ConditionSpec, M: int = 128) -> None:
        super().__init__(conditions, config.prediction)
        if len(shape) != 1:
            raise UsageError(f"an MLP needs vectors of shape (D,), got {tuple(shape)}")
        self.condition = Conditioning(
            config.hidden, conditions, config.step_encoding, M, config.time_scale, config.guidance_input
        )
        self.enter = nn.Linear(shape[0], config.hidden)  # input and output layer, by their names in stored weights
        self.blocks = nn.ModuleList(ModulatedBlock(config.hidden) for _ in range(config.depth))
        self.leave = nn.Linear(config.hidden, shape[0])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise: Xavier uniform, embedders normal(0.02), modulations and the last layer zero."""
        self.condition.reset_parameters()
        xavier_(self.enter)
        for block in self.blocks:
            assert isinstance(block, ModulatedBlock)
            xavier_(block.inner)
            xavier_(block.outer)
            zero_(block.modulation)
        zero_(self.leave)

    def output(self, x: Tensor, t: Tensor, d: Tensor, condition: Condition, guidance: Tensor | None) -> Tensor:
        """Return the last layer's prediction [B, D], typed like ``x``."""
        c = F.silu(self.condition(t, d, condition, guidance))
        h = self.enter(x.to(self.enter.weight.dtype)).to(c.dtype)
        for block in self.blocks:
            h = block(h, c)
        result: Tensor = self.leave(F.silu(h))
        return result.to(x.dtype)


class ModulatedBlock(nn.Module):
    """``h + W2 SiLU((1 + scale) W1 SiLU(h) + shift)``, with scale and shift from the conditioning vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """Map ``h`` [B, h] to [B, h]; ``condition``: SiLU of the conditioning vector, [B, h]."""
        shift, scale = self.modulation(condition).chunk(2, dim=-1)
        result: Tensor = h + self.outer(F.silu((1 + scale) * self.inner(F.silu(h)) + shift))
        return result
