"""Vectors of numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from anystep.codecs.base import Codec, Looks, RowReader, Rows, describe, sampled, statistic
from anystep.core.errors import DataError
from anystep.core.random import Draw

#: most constant columns that a note lists
MAX_LISTED = 10


@dataclass(frozen=True)
class Vectors(Codec):
    """Vectors float32 [D] as (value - mean) / std, with a mean and deviation for each column.

    A column that is constant in the data is constant in samples: it is encoded as 0, and decoded to its value whatever
    a network predicts.
    """

    name: ClassVar[str] = "vectors"
    looks: ClassVar[Looks] = "vector"

    mean: tuple[float, ...] = statistic()
    """Of each column, in the data's unit."""
    std: tuple[float, ...] = statistic()
    """Of each column, in the data's unit; 0 for a constant one."""

    def check(self) -> None:
        """Raise ValueError unless all means and deviations are finite, no deviation is below 0, and one is above."""
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
        """Fit mean and deviation of each column to at most 4,096 rows.

        Raises DataError for other rows, values that are not finite, and when every column is constant.
        """
        some = sampled(rows)
        _check_vectors(some, None, f"{rows.name}: ")
        values = some.numpy().astype(np.float64)
        if not (finite := np.isfinite(values).all(0)).all():
            raise DataError(f"{rows.name}: column {int(finite.argmin())} has values that are not finite")
        mean, std = values.mean(0), values.std(0)
        std[std.astype(np.float32) == 0] = 0
        if not std.any():
            raise DataError(f"{rows.name}: every column is constant, there is nothing to learn")
        return self.fitted(mean=tuple(mean.tolist()), std=tuple(std.tolist()))

    def notes(self) -> Sequence[str]:
        """List the constant columns."""
        constant = [str(column) for column, std in enumerate(self.std) if std == 0]
        if not constant:
            return ()
        listed, more = ", ".join(constant[:MAX_LISTED]), len(constant) - MAX_LISTED
        listed += f" and {more} more" if more > 0 else ""
        return (f"columns that are constant in the data, and so in samples, where nothing is learned: {listed}",)

    def shape(self) -> tuple[int, ...]:
        """Return (D,)."""
        return (len(self.mean),)

    def encode(self, rows: Rows, draw: Draw | None) -> Tensor:
        """Return float32 [B, D], each column with unit variance over the data."""
        _check_vectors(rows, len(self.mean))
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


def _check_vectors(rows: Rows, width: int | None, where: str = "") -> None:
    if rows.dtype != torch.float32 or rows.ndim != 2 or width not in (None, rows.shape[1]):
        expected = f"float32 vectors [n, {'D' if width is None else width}]"
        raise DataError(f"{where}codec vectors expects {expected}, got {describe(rows)}")
