"""What an update trains on: rows of the data set with fresh noise, or pairs that a teacher made (`pairs.py`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anystep.codecs import Codec, Rows, encode_condition
from anystep.data import Dataset
from anystep.flow.condition import Condition, to
from anystep.objectives import Batch, Draw


class Examples(Protocol):
    """Rows by number; `read` once for the global batch, `batch` for each rank's or micro-batch's part of it."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def read(self, index: NDArray[np.int64]) -> Any:
        """Return the rows as they are stored."""

    def batch(self, rows: Any, index: NDArray[np.int64], draw: Draw) -> Batch:
        """Return our part (``draw.rows``) of the rows that `read` gave, as tensors on the draw's device."""


@dataclass(frozen=True)
class DataExamples:
    """Rows of a data set, encoded, each with its own noise."""

    dataset: Dataset
    codec: Codec
    condition_codecs: Mapping[str, Codec] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: NDArray[np.int64]) -> Rows:
        """Return the rows as they are stored; pictures are uint8 until `batch`."""
        return self.dataset.read(index)

    def batch(self, rows: Rows, index: NDArray[np.int64], draw: Draw) -> Batch:
        """Return our part of the rows: encoded data, its noise, what each is given."""
        x1, condition = self.clean(rows, index, draw)
        return Batch(x1=x1, x0=draw.normal("noise", x1.shape[1:]), condition=condition)

    def clean(self, rows: Rows, index: NDArray[np.int64], draw: Draw) -> tuple[Tensor, Condition]:
        """Return our part of the rows without noise: encoded data and what each example is given."""
        x1 = self.codec.encode(rows[draw.rows].to(draw.device), draw)
        return x1, to(self.condition(index[draw.rows]), draw.device)

    def condition(self, index: NDArray[np.int64]) -> Condition:
        """Return what these rows are given, encoded, on the CPU."""
        condition = self.dataset.condition(index)
        if not self.condition_codecs:
            return condition
        return encode_condition(self.condition_codecs, self.dataset.conditions, condition)
