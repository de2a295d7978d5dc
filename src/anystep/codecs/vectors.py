"""Vectors of numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from anystep.codecs.base import Codec, Looks, RowReader, Rows, sampled, statistic
from anystep.core.errors import DataError
from anystep.core.random import Draw

#: constant columns that a note names, at most
NAMED = 10


@dataclass(frozen=True)
class Vectors(Codec):
    """Vectors float32 [D] as (value - mean) / std, with a mean and deviation for each column.

    A column that is constant in the data stays so: it is encoded as 0, and decoded to its value whatever a network
    makes of it.
    """

    name: ClassVar[str] = "vectors"
    looks: ClassVar[Looks] = "vector"

    mean: tuple[float, ...] = statistic()
    """Of each column, in the data's unit."""
    std: tuple[float, ...] = statistic()
    """Of each column, in the data's unit; 0 for a constant one."""

    def check(self) -> None:
        """Raise ValueError unless each column has a finite mean and a deviation of at least 0, and one of them more."""
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(
                f"codec vectors needs a mean and a std for each column, got {len(self.mean)} and {len(self.std)}"
            )
        for column, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            if not (math.isfinite(mean) and math.isfinite(std) and std >= 0):
                raise ValueError(
                    f"codec vectors needs finite means and stds of at least 0, got {mean}, {std} in column {column}"
                )
        if not any(self.std):
            raise ValueError("codec vectors needs a column with a std above 0, got none")

    def fit(self, rows: RowReader) -> Self:
        """Take mean and deviation of each column over at most 4,096 rows.

        Raises DataError for other rows, values that are not finite, and when every column is constant.
        """
        some = sampled(rows)
        if wrong := misfit(some):
            raise DataError(f"{rows.name}: {wrong}")
        values = some.numpy().astype(np.float64)
        if not (finite := np.isfinite(values).all(0)).all():
            raise DataError(f"{rows.name}: column {int(finite.argmin())} has values that are not finite")
        mean, std = values.mean(0), values.std(0)
        std[std.astype(np.float32) == 0] = 0
        if not std.any():
            raise DataError(f"{rows.name}: every column is constant, there is nothing to learn")
        return self.fitted(mean=tuple(mean.tolist()), std=tuple(std.tolist()))

    def notes(self) -> Sequence[str]:
        """Name the constant columns."""
        constant = [str(column) for column, std in enumerate(self.std) if std == 0]
        if not constant:
            return ()
        named = ", ".join(constant[:NAMED]) + (f" and {len(constant) - NAMED} more" if len(constant) > NAMED else "")
        return (f"columns that are constant in the data, and so in samples, where nothing is learned: {named}",)

    def shape(self) -> tuple[int, ...]:
        """Return (D,)."""
        return (len(self.mean),)

    def encode(self, rows: Rows, draw: Draw | None) -> Tensor:
        """Return float32 [B, D], each column with unit variance over the data."""
        if wrong := misfit(rows, len(self.mean)):
            raise ValueError(wrong)
        mean, std = self._statistics.to(rows.device).unbind()
        return (rows - mean) / std.where(std > 0, torch.inf)

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
