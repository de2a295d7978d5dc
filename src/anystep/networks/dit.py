"""DiT: a transformer over patches whose blocks are modulated by (t, d, condition): Peebles and Xie 2023, with d.

Two variants. ``standard`` is the published DiT: logits scaled by 1/sqrt(head_dim), modulations that start at zero
(each block starts as the identity), t times 1000. ``reference`` is the network of Frans et al. 2024's code: logits
scaled by 1/head_dim, Xavier modulations in the blocks, raw t. Use it to load their weights.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.core.errors import UsageError, did_you_mean
from anystep.core.fields import PositiveFloat, require
from anystep.flow.condition import Condition, ConditionSpec
from anystep.networks.base import VelocityNetwork, VelocityNetworkConfig
from anystep.networks.blocks import Attention, Block, BlockMlp, FinalLayer, MlpKind, Norm, xavier_, zero_
from anystep.networks.embeddings import Conditioning, grid_coordinates, rotary_angles, sincos_positions

#: options that must be the defaults with variant "reference": those of the released weights (time_scale has no effect)
_FIXED = ("prediction", "qk_norm", "norm", "mlp", "positions", "time_scale")


@dataclass(frozen=True)
class DiTConfig(VelocityNetworkConfig):
    """The hyper-parameters of a DiT; the defaults are DiT-B/2. Raises UsageError naming a field out of range."""

    name: ClassVar[str] = "dit"
    attends: ClassVar[bool] = True

    hidden: Annotated[int, Ge(1)] = 768
    """Width of the token vectors; a multiple of heads, and of 4 (of 4 * heads with rotary positions)."""
    depth: Annotated[int, Ge(1)] = 12
    """Number of blocks."""
    heads: Annotated[int, Ge(1)] = 12
    """Attention heads."""
    patch: Annotated[int, Ge(1)] = 2
    """Side of a square patch, in pixels of the image or latent; both image sides must be multiples of it."""
    mlp_ratio: PositiveFloat = 4.0
    """Hidden units of a block's MLP, as a multiple of hidden."""
    variant: Literal["standard", "reference"] = "standard"
    """The published DiT, or the network that the weights released by Frans et al. 2024 expect."""
    qk_norm: bool = False
    """RMS-normalise queries and keys in each head: keeps logits bounded in long bf16 runs."""
    norm: Norm = "layer"
    """The blocks' norm: LayerNorm, or RMSNorm (no mean subtraction)."""
    mlp: MlpKind = "gelu"
    """The blocks' MLP: tanh GELU, or SwiGLU with 2/3 of the hidden units (equal parameters)."""
    positions: Literal["sincos", "rotary"] = "sincos"
    """Fixed 2-D sines added to the patches, or 2-D axial rotations of queries and keys."""

    def check_combinations(self) -> None:
        """Raise UsageError for widths that do not divide, and for options that do not go with ``reference``."""
        require(self.hidden % self.heads == 0, "network.hidden", self.hidden, f"a multiple of heads ({self.heads})")
        rotary = self.positions == "rotary"
        name, width = ("network.hidden / heads", self.head_dim) if rotary else ("network.hidden", self.hidden)
        require(width % 4 == 0, name, width, f"a multiple of 4 for {self.positions} positions")
        if self.variant == "reference":
            for field in _FIXED:
                value, fixed = getattr(self, field), getattr(DiTConfig, field)
                require(value == fixed, f"network.{field}", value, f'{fixed!r} with variant "reference"')

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads

    def build(self, shape: tuple[int, ...], conditions: ConditionSpec, M: int = 128) -> "DiT":
        """Return the network for images of ``shape`` (C, H, W); raises UsageError unless patch divides H and W."""
        return DiT(self, shape, conditions, M)


class DiT(VelocityNetwork):
    """Images [B, C, H, W] in, velocity of the same shape and type out; H and W are any multiples of the patch."""

    def __init__(self, config: DiTConfig, shape: tuple[int, ...], conditions: ConditionSpec, M: int = 128) -> None:
        super().__init__(conditions, config.prediction)
        if len(shape) != 3:
            raise UsageError(
                f"a DiT needs images of shape (channels, height, width), got {tuple(shape)}; vectors: recipes vectors-*"
            )
        channels, height, width = shape
        self.config = config
        self._check_sides(height, width)
        hidden, reference = config.hidden, config.variant == "reference"
        time_scale = None if reference else config.time_scale
        scale = 1 / config.head_dim if reference else config.head_dim**-0.5
        self.patch_embed = nn.Conv2d(channels, hidden, config.patch, stride=config.patch)
        self.condition = Conditioning(hidden, conditions, config.step_encoding, M, time_scale, config.guidance_input)
        self.blocks = nn.ModuleList()
        for _ in range(config.depth):
            attention = Attention(hidden, config.heads, scale, config.qk_norm)
            self.blocks.append(Block(hidden, attention, BlockMlp(hidden, config.mlp_ratio, config.mlp), config.norm))
        self.final = FinalLayer(hidden, config.patch**2 * channels, config.norm)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise: Xavier uniform, embedders normal(0.02), last layer zero, modulations too unless ``reference``."""
        nn.init.xavier_uniform_(self.patch_embed.weight.data.flatten(1))  # a linear layer per patch
        if self.patch_embed.bias is not None:
            nn.init.zeros_(self.patch_embed.bias)
        self.condition.reset_parameters()
        for block in self.blocks:
            assert isinstance(block, Block)
            xavier_(block.attention.qkv, parts=3)
            for linear in (block.attention.out, block.mlp.inner, block.mlp.outer, block.modulation):
                xavier_(linear)
            if block.attention.gains is not None:
                nn.init.ones_(block.attention.gains)
            if self.config.variant == "standard":
                zero_(block.modulation)  # each block starts as the identity
        zero_(self.final.modulation)
        zero_(self.final.linear)

    def output(self, x: Tensor, t: Tensor, d: Tensor, condition: Condition, guidance: Tensor | None) -> Tensor:
        """Return the last layer's prediction [B, C, H, W], typed like ``x``. Raises UsageError for unfit sides."""
        rows, columns = self._check_sides(*x.shape[2:])
        coordinates, angle = grid_coordinates(rows, columns, x.device), None
        c = F.silu(self.condition(t, d, condition, guidance))
        tokens = self.patch_embed(x.to(self.patch_embed.weight.dtype)).flatten(2).transpose(1, 2)
        if self.config.positions == "rotary":
            angle = rotary_angles(coordinates, self.config.head_dim)
        else:
            tokens = tokens + sincos_positions(coordinates, self.config.hidden).to(c.dtype)
        for block in self.blocks:
            tokens = block(tokens, c, angle)
        return unpatchify(self.final(tokens, c), rows, columns, self.config.patch).to(x.dtype)

    def _check_sides(self, height: int, width: int) -> tuple[int, int]:
        """Return the numbers of patches; raises UsageError if the patch does not divide a side."""
        patch = self.config.patch
        if height % patch or width % patch:
            raise UsageError(f"image sides must be multiples of patch ({patch}), got {height} x {width}")
        return height // patch, width // patch


def unpatchify(tokens: Tensor, rows: int, columns: int, patch: int) -> Tensor:
    """Arrange tokens [B, rows * columns, patch * patch * C], channels last in a patch, as images [B, C, H, W]."""
    grid = tokens.reshape(-1, rows, columns, patch, patch, tokens.shape[2] // patch**2)
    return grid.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


#: hidden, depth, heads
_SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}
#: The published sizes S, B, L, XL, a slash, and the patch 1, 2, 4 or 8
DIT_PRESETS: tuple[str, ...] = tuple(f"{size}/{patch}" for size in _SIZES for patch in (1, 2, 4, 8))


def dit_preset(preset: str, **changes: object) -> DiTConfig:
    """Return a DiT of `DIT_PRESETS`, with the fields ``changes``. Raises UsageError for an unknown name."""
    if preset not in DIT_PRESETS:
        hint = did_you_mean(preset, DIT_PRESETS)
        raise UsageError(f"no DiT preset {preset!r}: it must be one of {', '.join(DIT_PRESETS)}{hint}")
    size, patch = preset.split("/")
    hidden, depth, heads = _SIZES[size]
    fields: dict[str, object] = {"hidden": hidden, "depth": depth, "heads": heads, "patch": int(patch), **changes}
    return DiTConfig(**fields)  # type: ignore[arg-type]
