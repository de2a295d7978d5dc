"""Vectors of numbers."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from anystep.codecs.base import Codec, Looks, RowReader, Rows, sampled, statistic
from anystep.core.errors import DataError
from anystep.core.random import Draw


@dataclass(frozen=True)
class Vectors(Codec):
    """Vectors float32 [D] as (value - mean) / std, with a mean and deviation for each column."""

    name: ClassVar[str] = "vectors"
    looks: ClassVar[Looks] = "vector"

    mean: tuple[float, ...] = statistic()
    """Of each column, in the data's unit."""
    std: tuple[float, ...] = statistic()
    """Of each column, in the data's unit; above 0."""

    def check(self) -> None:
        """Raise ValueError unless each column has a finite mean and a deviation above 0."""
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(
                f"codec vectors needs a mean and a std for each column, got {len(self.mean)} and {len(self.std)}"
            )
        for column, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
                raise ValueError(
                    f"codec vectors needs finite means and stds above 0, got {mean}, {std} in column {column}"
                )

    def fit(self, rows: RowReader) -> Self:
        """Take mean and deviation over at most 4,096 rows. Raises DataError for other rows, and when all are equal."""
        some = sampled(rows)
        if wrong := misfit(some):
            raise DataError(f"{rows.name}: {wrong}")
        values = some.numpy().astype(np.float64)
        mean, std, width = float(values.mean()), float(values.std()), values.shape[1]
        if std == 0:
            raise DataError(f"{rows.name}: every value is {mean:g}, there is nothing to learn")
        return self.fitted(mean=(mean,) * width, std=(std,) * width)

    def shape(self) -> tuple[int, ...]:
        """Return (D,)."""
        return (len(self.mean),)

    def encode(self, rows: Rows, draw: Draw | None) -> Tensor:
        """Return float32 [B, D] with unit variance."""
        if wrong := misfit(rows, len(self.mean)):
            raise ValueError(wrong)
        mean, std = self._statistics.to(rows.device).unbind()
        return (rows - mean) / std

    def decode(self, x: Tensor, *, rounded: bool = True) -> Rows:
        """Return float32 [B, D] in the data's unit; there is nothing to round."""
        mean, std = self._statistics.to(x.device).unbind()
        return x.detach().float() * std + mean

    @cached_property
    def _statistics(self) -> Tensor:
        """Mean and deviation, float32 [2, D]."""
        return torch.tensor([self.mean, self.std], dtype=torch.float32)


def misfit(rows: Rows, width: int | None = None) -> str | None:
    """Return why rows are no vectors (of ``width`` numbers), or None."""
    if rows.dtype == torch.float32 and rows.ndim == 2 and width in (None, rows.shape[1]):
        return None
    found = f"{str(rows.dtype).removeprefix('torch.')} {list(rows.shape)}"
    return f"codec vectors expects float32 vectors [n, {'D' if width is None else width}], got {found}"
