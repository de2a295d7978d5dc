"""What an example is: the stored form of a data set's rows, the form that a network sees, and the way between them."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NoReturn, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anystep.core.random import Draw
from anystep.core.registry import Option

#: stored rows, on the first axis: uint8 [B, H, W, C], float32 [B, D], float16 moments [B, 2, C, h, w], ...
Rows = Tensor
#: how decoded rows are shown; a video is a picture
Looks = Literal["picture", "vector", "trajectory"]

#: most rows that a mean and a deviation are computed from
STATISTICS_ROWS = 4096


class RowReader(Protocol):
    """Rows by number: a data set, or one entry of its conditions. ``name`` is for messages."""

    @property
    def name(self) -> str:
        """Name of the rows."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def read(self, index: NDArray[np.int64]) -> Rows:
        """Return the rows of these numbers, as they are stored."""


def statistic() -> Any:
    """Declare a field of a codec that `Codec.fit` computes: absent until then, and never an option."""
    return field(init=False, repr=False, compare=False, metadata={"statistic": True})


@dataclass(frozen=True)
class Codec(Option, ABC, section="codec"):
    """Stored rows <-> what a network sees. Subclasses are frozen dataclasses of options and fitted statistics.

    Options are ordinary fields. Statistics are declared with `statistic()`: they are fitted once, when a run starts,
    and read from its `run.json` afterwards. Without them a codec can only be fitted. Codecs are equal when their
    options are.
    """

    looks: ClassVar[Looks]

    @abstractmethod
    def fit(self, rows: RowReader) -> "Codec":
        """Return the codec with the statistics of these rows.

        Raises DataError for rows that it cannot encode, or that have nothing to learn.
        """

    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one example in network space."""

    @abstractmethod
    def encode(self, rows: Rows, draw: Draw | None) -> Tensor:
        """Return what the network sees, float32 [B, *shape], on the device of ``rows``.

        ``draw`` gives the randomness of training (mirroring, latents); None: the deterministic form. Raises ValueError
        for rows of another type or shape.
        """

    @abstractmethod
    def decode(self, x: Tensor, *, rounded: bool = True) -> Rows:
        """Return examples in the data's form, from ``x`` [B, *shape].

        ``rounded`` False: float32 in the same unit (pixels: 0 to 255) instead of the nearest stored value.
        """

    def view(self, rows: Rows) -> Rows:
        """Return stored rows in the form of `decode`, for metrics and figures."""
        return rows

    def normalised(self, viewed: Rows) -> Tensor:
        """Return rows in the form of `decode` in units of about unit variance, for distances.

        A codec whose decoded form is not the stored one overrides this.
        """
        return self.encode(viewed, None)

    def lacks(self) -> str | None:
        """Return what is missing here for decoding (an extra, a folder), for messages; None: nothing."""
        return None

    def notes(self) -> Sequence[str]:
        """Return warnings about the fitted statistics, a line each."""
        return ()

    def check(self) -> None:
        """Raise ValueError for statistics that cannot be used."""

    def fitted(self, **statistics: Any) -> Self:
        """Return the codec with these statistics. Raises ValueError unless all are given and can be used."""
        expected = {f.name for f in dataclasses.fields(self) if not f.init}
        if statistics.keys() != expected:
            given = ", ".join(sorted(statistics)) or "none"
            raise ValueError(f"codec {self.name} needs the statistics {', '.join(sorted(expected))}, got {given}")
        codec = dataclasses.replace(self)
        for name, value in statistics.items():
            object.__setattr__(codec, name, value)  # the dataclass is frozen
        codec.check()
        return codec

    def statistics(self) -> dict[str, Any]:
        """Return the fitted statistics by name; none before `fit`."""
        names = (f.name for f in dataclasses.fields(self) if not f.init)
        return {name: getattr(self, name) for name in names if hasattr(self, name)}


def _undecided(*arguments: object, **options: object) -> NoReturn:
    raise TypeError("codec auto stands for that of the data set: use dataset.codec")


@dataclass(frozen=True)
class Auto(Codec):
    """The codec of the data set: pixels for images, vectors for vectors. It is replaced before anything is encoded."""

    name: ClassVar[str] = "auto"

    fit = shape = encode = decode = _undecided


def sampled(rows: RowReader, most: int = STATISTICS_ROWS) -> Rows:
    """Return at most ``most`` rows at a fixed stride; all rows of smaller sets."""
    return rows.read(stride(len(rows), most))


def stride(length: int, most: int = STATISTICS_ROWS) -> NDArray[np.int64]:
    """Return at most ``most`` numbers below ``length``, at equal distances."""
    count = min(length, most)
    return np.arange(count) * length // count


def describe(rows: Rows) -> str:
    """Return the type and shape of rows in words."""
    return f"{str(rows.dtype).removeprefix('torch.')} {list(rows.shape)}"
