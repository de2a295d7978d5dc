"""The codec of a config that leaves the choice to the data set."""

from dataclasses import dataclass
from typing import ClassVar, NoReturn

from torch import Tensor

from anystep.codecs.base import Codec, Looks, RowReader, Rows
from anystep.core.random import Draw


@dataclass(frozen=True)
class Auto(Codec):
    """The data set's own codec: pixels for pictures, vectors for vectors. `chosen` puts that in its place."""

    name: ClassVar[str] = "auto"
    looks: ClassVar[Looks]  # the data set decides

    def _undecided(self) -> NoReturn:
        raise TypeError("codec auto stands for the data set's own: take anystep.codecs.chosen(codec, dataset.codec)")

    def fit(self, rows: RowReader) -> Codec:
        """Raise TypeError, as all methods do."""
        self._undecided()

    def shape(self) -> tuple[int, ...]:
        """Raise TypeError."""
        self._undecided()

    def encode(self, rows: Rows, draw: Draw | None) -> Tensor:
        """Raise TypeError."""
        self._undecided()

    def decode(self, x: Tensor, *, rounded: bool = True) -> Rows:
        """Raise TypeError."""
        self._undecided()


def chosen(codec: Codec, own: Codec) -> Codec:
    """Return the codec of a config where it names one, else the data set's own."""
    return own if isinstance(codec, Auto) else codec
