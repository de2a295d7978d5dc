"""The parts of a transformer block whose norm, scale and gate come from the conditioning vector (adaLN)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.networks.embeddings import rotate

Norm = Literal["layer", "rms"]
MlpKind = Literal["gelu", "swiglu"]

NORM_EPS = 1e-6
#: longest sequence for which attention on the CPU is plain matrix products
CPU_PLAIN_TOKENS = 256


def plain_norm(width: int, kind: Norm) -> nn.Module:
    """Return a norm over the last axis without weights (eps 1e-6): scale and shift come from adaLN."""
    if kind == "rms":
        return nn.RMSNorm(width, eps=NORM_EPS, elementwise_affine=False)
    return nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return ``x (1 + scale) + shift``; ``x``: [B, N, h], ``shift`` and ``scale``: [B, 1, h]."""
    return x * (1 + scale) + shift


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Return ``softmax(scale q k^T) v``, all [B, heads, N, D]; the softmax is in float32 under bf16 too.

    Fused, except for short sequences on the CPU. There the fused backward pass is slow in bf16 and with float32
    matmul precision "medium": 71 and 138 ms against 8 and 6 for 16 tokens (batch 256, 4 heads of 32, one thread).
    """
    if q.device.type == "cpu" and q.shape[2] <= CPU_PLAIN_TOKENS:
        weights = (q * scale @ k.mT).softmax(-1, dtype=torch.float32)
        return weights.to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


class Attention(nn.Module):
    """Self-attention with logits ``scale q.k``; ``qk_norm``: each head's q and k RMS-normalised, with learned gains."""

    def __init__(self, width: int, heads: int, scale: float, qk_norm: bool = False) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.gains = nn.Parameter(torch.ones(2, width // heads)) if qk_norm else None

    def forward(self, x: Tensor, angle: Tensor | None = None) -> Tensor:
        """Map ``x`` [B, N, h] to [B, N, h]; ``angle`` [N, head_dim / 2] rotates queries and keys (rotary positions)."""
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        if self.gains is not None:
            q, k = (
                (F.rms_norm(each, each.shape[-1:], eps=NORM_EPS) * gain).to(v.dtype)
                for each, gain in zip((q, k), self.gains, strict=True)
            )
        if angle is not None:
            q, k = rotate(q, angle), rotate(k, angle)
        mixed = attend(q, k, v, self.scale)
        result: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return result


class BlockMlp(nn.Module):
    """Linear, tanh GELU, Linear with ``ratio`` times as many hidden units as inputs; or ``kind`` "swiglu".

    SwiGLU is ``W3 (SiLU(W1 x) * W2 x)`` with 2/3 of the hidden units, so that both have as many parameters.
    """

    def __init__(self, width: int, ratio: float, kind: MlpKind) -> None:
        super().__init__()
        self.gated = kind == "swiglu"
        hidden = int(width * ratio)
        if self.gated:
            hidden = 8 * max(1, round(width * ratio * 2 / 3 / 8))  # multiples of 8 keep tensor cores busy
        self.inner = nn.Linear(width, 2 * hidden if self.gated else hidden)
        self.outer = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., h] to [..., h]."""
        h = self.inner(x)
        if self.gated:
            gate, value = h.chunk(2, dim=-1)
            h = F.silu(gate) * value
        else:
            h = F.gelu(h, approximate="tanh")
        result: Tensor = self.outer(h)
        return result


class Block(nn.Module):
    """Attention, then an MLP; the conditioning vector shifts, scales and gates both."""

    def __init__(self, width: int, attention: Attention, mlp: BlockMlp, norm: Norm) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 6 * width)
        self.attention_norm = plain_norm(width, norm)
        self.attention = attention
        self.mlp_norm = plain_norm(width, norm)
        self.mlp = mlp

    def forward(self, x: Tensor, condition: Tensor, angle: Tensor | None = None) -> Tensor:
        """Map ``x`` [B, N, h] to [B, N, h]; ``condition``: SiLU of the conditioning vector, [B, h]."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(condition).unsqueeze(1).chunk(6, dim=-1)
        x = x + gate * self.attention(modulate(self.attention_norm(x), shift, scale), angle)
        result: Tensor = x + mlp_gate * self.mlp(modulate(self.mlp_norm(x), mlp_shift, mlp_scale))
        return result


class FinalLayer(nn.Module):
    """A modulated norm, then each token's pixels. Zero-initialised, so that the first velocity is exactly 0."""

    def __init__(self, width: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        self.norm = plain_norm(width, norm)
        self.linear = nn.Linear(width, outputs)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map ``x`` [B, N, h] to [B, N, outputs]; ``condition``: SiLU of the conditioning vector, [B, h]."""
        shift, scale = self.modulation(condition).unsqueeze(1).chunk(2, dim=-1)
        result: Tensor = self.linear(modulate(self.norm(x), shift, scale))
        return result


@torch.no_grad()
def xavier_(linear: nn.Linear, parts: int = 1) -> None:
    """Initialise Xavier uniform with zero bias, each of ``parts`` stacked matrices with its own fan-out."""
    for part in linear.weight.chunk(parts):
        nn.init.xavier_uniform_(part)
    nn.init.zeros_(linear.bias)


def zero_(linear: nn.Linear) -> None:
    """Set weight and bias to zero."""
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
