"""Embeddings of the inputs next to x_t (t, d, condition, guidance) and of the positions of patches."""

import math
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from anystep.core.errors import UsageError
from anystep.flow.condition import Condition, ConditionSpec
from anystep.flow.ladder import Ladder

StepEncoding = Literal["log2", "continuous", "none"]
#: the optional inputs of a network: d and W
Input = Literal["step", "guidance"]

#: t in [0, 1] times this covers the periods of the sinusoids (2 pi ... 2 pi 10^4), as diffusion's 1000 steps do
TIME_SCALE = 1000.0
#: factor of W - 1 in the sinusoids: a step of 1/4, that of the trained grid of W, turns the fastest by 1 radian
GUIDANCE_SCALE = 4.0
#: standard deviation of the embedders' initial weights
EMBEDDER_STD = 0.02
#: number of frequencies that encode a scalar
FREQUENCIES = 128


class ScalarEmbedding(nn.Module):
    """A scalar [B] as a vector [B, width]: cosines and sines of 128 frequencies 10000^(-i/128), Linear-SiLU-Linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(2 * FREQUENCIES, width)
        self.outer = nn.Linear(width, width)

    def forward(self, value: Tensor) -> Tensor:
        """Return the embedding of ``value`` [B], [B, width]."""
        frequency = torch.exp(torch.arange(FREQUENCIES, device=value.device) * (-math.log(10000) / FREQUENCIES))
        angle = value.float()[:, None] * frequency
        features = torch.cat([angle.cos(), angle.sin()], dim=1).to(self.inner.weight.dtype)
        result: Tensor = self.outer(nn.functional.silu(self.inner(features)))
        return result


class FeatureEmbedding(nn.Module):
    """A feature [B, ...] as a vector [B, width]: Linear-SiLU-Linear, or a learned vector for "nothing given" (NaN)."""

    def __init__(self, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(math.prod(shape), width)
        self.outer = nn.Linear(width, width)
        self.null = nn.Parameter(torch.empty(width))

    def forward(self, value: Tensor) -> Tensor:
        """Return the embedding of ``value`` [B, ...], [B, width]."""
        flat = value.reshape(len(value), self.inner.in_features).to(self.inner.weight.dtype)
        missing = flat.isnan().any(1, keepdim=True)
        features: Tensor = self.outer(nn.functional.silu(self.inner(flat.nan_to_num())))
        return torch.where(missing, self.null, features)  # both always computed: no branch, no unused parameter


class Conditioning(nn.Module):
    """The sum of the embeddings of t, d, the condition and the guidance scale W: the vector that conditions each block.

    ``step``: ``log2`` embeds the level log2(1/d) of ``M`` smallest steps (d = 0 and d = 1/M share one), ``continuous``
    embeds d itself, ``none`` is a network without a step input. All are scaled to [0, time_scale] for their sinusoids;
    None uses t and the level unscaled, as in the code of Frans et al. 2024. Then neighbouring levels have nearly the
    same code: only the fastest fifth of the 128 sinusoids turn by a radian.
    With ``guidance`` W is an input. A fresh embedding of it is zero: the network starts independent of W.
    """

    def __init__(
        self,
        width: int,
        conditions: ConditionSpec,
        step: StepEncoding,
        M: int,
        time_scale: float | None = TIME_SCALE,
        guidance: bool = False,
    ) -> None:
        super().__init__()
        self.conditions = conditions
        self.encoding = step
        self.ladder = Ladder(M)
        self.time_scale = 1.0 if time_scale is None else time_scale
        self.level_scale = 1.0 if time_scale is None else time_scale / self.ladder.levels
        self.time = ScalarEmbedding(width)
        self.step = None if step == "none" else ScalarEmbedding(width)
        classes = conditions.num_classes
        self.label = None if classes is None else nn.Embedding(classes + 1, width)
        features = {name: entry for name, entry in conditions.entries.items() if entry.kind == "feature"}
        self.features = nn.ModuleDict({name: FeatureEmbedding(entry.shape, width) for name, entry in features.items()})
        self.guidance = ScalarEmbedding(width) if guidance else None

    def forward(self, t: Tensor, d: Tensor, condition: Condition, guidance: Tensor | None = None) -> Tensor:
        """Return the conditioning vector, [B, width], in float32 under autocast too. Arguments as of the network."""
        if condition is None:
            condition = self.conditions.nothing(len(t), t.device)
        elif not self.conditions:
            raise UsageError("this network is unconditional: it takes no condition")
        else:
            self.conditions.check(condition, len(t))
        given = self.conditions.named(condition)
        device = t.device.type  # "meta" computes nothing, and has no autocast to switch off
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            result: Tensor = self.time(t * self.time_scale)
            if self.label is not None:
                result = result + self.label(given[self.conditions.label or ""])
            for name, embedding in self.features.items():
                result = result + embedding(given[name])
            if self.step is not None:
                result = result + self.step(self.step_value(d))
            if self.guidance is not None:
                increment = torch.zeros_like(t) if guidance is None else guidance - 1
                result = result + self.guidance(increment * GUIDANCE_SCALE)
        return result

    def step_value(self, d: Tensor) -> Tensor:
        """Return the number whose sinusoids encode ``d``: its level or itself, scaled. [B]."""
        if self.encoding == "log2":
            return self.ladder.index(d) * self.level_scale
        return d * self.time_scale

    def zero_input(self, name: Input) -> None:
        """Make the embedding of an input exactly 0 until training changes it: its outer layer becomes zero.

        For a network that is initialised from weights without this input. The gradient reaches the embedder.
        """
        embedding = self.step if name == "step" else self.guidance
        if embedding is not None:
            nn.init.zeros_(embedding.outer.weight)
            nn.init.zeros_(embedding.outer.bias)

    @torch.no_grad()
    def drop_input(self, name: Input) -> None:
        """Fix an input at d = 0 or W = 1: its embedding there goes into the bias of the time's, and then is zero.

        For weights that are reused without the input, or with another encoding of it.
        """
        embedding = self.step if name == "step" else self.guidance
        if embedding is not None:
            zero = torch.zeros(1, device=self.time.outer.bias.device)  # d, or W - 1
            self.time.outer.bias.add_(embedding(self.step_value(zero) if name == "step" else zero)[0])
            self.zero_input(name)

    def reset_parameters(self) -> None:
        """Initialise: weights and label table normal(0.02), biases zero, the embedding of W zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=EMBEDDER_STD)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
            if isinstance(module, FeatureEmbedding):
                nn.init.normal_(module.null, std=EMBEDDER_STD)
        self.zero_input("guidance")


def grid_coordinates(rows: int, columns: int, device: torch.device) -> Tensor:
    """Return (column, row) of each patch in row-major order, float32 [rows * columns, 2]."""
    row, column = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    return torch.stack([column.flatten(), row.flatten()], dim=1).float()


def sincos_positions(coordinates: Tensor, width: int) -> Tensor:
    """Return the fixed 2-D positions of DiT: half of the channels for the column, half for the row, each [sin, cos].

    ``coordinates``: [N, 2] (column, row); ``width`` a multiple of 4; returns float32 [N, width].
    """
    angle = rotary_angles(coordinates, width, base=10000.0).reshape(-1, 2, width // 4)
    return torch.cat([angle.sin(), angle.cos()], dim=2).flatten(1)


def rotary_angles(coordinates: Tensor, head_dim: int, base: float = 100.0) -> Tensor:
    """Return the angle that rotates each pair of a head's channels: half of the pairs by column, half by row.

    ``coordinates``: [N, 2]; ``head_dim`` a multiple of 4; returns float32 [N, head_dim / 2]. The slowest period,
    ``2 pi base`` patches, suits grids tens of patches wide; text models use 10000.
    """
    quarter = head_dim // 4
    frequency = base ** (-torch.arange(quarter, device=coordinates.device) / quarter)
    return (coordinates[:, :, None] * frequency).flatten(1)


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Rotate channel pairs (i, i + D/2) of ``x`` [B, heads, N, D] by ``angle`` [N, D/2]; typed like ``x``."""
    a, b = x.float().chunk(2, dim=-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)
