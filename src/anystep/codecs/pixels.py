"""Images as uint8 pixels."""

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from anystep.codecs.base import Codec, Looks, RowReader, Rows, describe, sampled, statistic
from anystep.core.errors import DataError
from anystep.core.random import Draw


@dataclass(frozen=True)
class Pixels(Codec):
    """Images uint8 [H, W, C] as (pixel - mean) / std, float32 [C, H, W]: one mean and deviation for all pixels."""

    name: ClassVar[str] = "pixels"
    looks: ClassVar[Looks] = "picture"

    mirror: bool = False
    """Mirror half of the images left to right in training."""
    size: tuple[int, int, int] = statistic()
    """Height, width and channels."""
    mean: float = statistic()
    """In grey levels, 0 to 255."""
    std: float = statistic()
    """In grey levels; above 0."""

    def check(self) -> None:
        """Raise ValueError unless the mean is finite and the deviation above 0."""
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise ValueError(f"codec pixels needs a finite mean and a std above 0, got {self.mean}, {self.std}")
        if len(self.size) != 3 or min(self.size) < 1:
            raise ValueError(f"codec pixels needs a height, a width and channels, got {self.size}")

    def fit(self, rows: RowReader) -> Self:
        """Fit mean and deviation to at most 4,096 images. Raises DataError for other rows, and for constant images."""
        some = sampled(rows)
        _check_images(some, f"{rows.name}: ")
        values = some.numpy().astype(np.float64)
        mean, std = float(values.mean()), float(values.std())
        if std == 0:
            raise DataError(f"{rows.name}: every value is {mean:g}, there is nothing to learn")
        return self.fitted(size=tuple(some.shape[1:]), mean=mean, std=std)

    def shape(self) -> tuple[int, ...]:
        """Return (C, H, W)."""
        height, width, channels = self.size
        return (channels, height, width)

    def encode(self, rows: Rows, draw: Draw | None) -> Tensor:
        """Return float32 [B, C, H, W]; with ``mirror`` and a draw, half of the images mirrored (stream "flip")."""
        _check_images(rows)
        x = rows.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        x = (x - self.mean) / self.std
        if self.mirror and draw is not None:
            mirrored = (draw.uniform("flip") < 0.5).reshape(-1, 1, 1, 1).to(x.device)
            x = torch.where(mirrored, x.flip(-1), x)
        return x

    def decode(self, x: Tensor, *, rounded: bool = True) -> Rows:
        """Return uint8 [B, H, W, C], clipped, with 0 for NaN; not rounded: float32."""
        pixels = (x.detach().float() * self.std + self.mean).permute(0, 2, 3, 1)
        if not rounded:
            return pixels.contiguous()
        return pixels.nan_to_num(0.0).round().clamp(0, 255).to(torch.uint8).contiguous()


def _check_images(rows: Rows, where: str = "") -> None:
    if rows.dtype != torch.uint8 or rows.ndim != 4:
        expected = "uint8 images [n, H, W, C] (vectors: recipes vectors-*)"
        raise DataError(f"{where}codec pixels expects {expected}, got {describe(rows)}")
