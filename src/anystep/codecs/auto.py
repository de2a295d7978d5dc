"""The codec of a config that leaves the choice to the data set."""

from dataclasses import dataclass
from typing import ClassVar, NoReturn

from anystep.codecs.base import Codec, Looks


def _undecided(*arguments: object, **options: object) -> NoReturn:
    raise TypeError("codec auto stands for that of the data set: use dataset.codec")


@dataclass(frozen=True)
class Auto(Codec):
    """The codec of the data set: pixels for images, vectors for vectors. It is replaced before anything is encoded."""

    name: ClassVar[str] = "auto"
    looks: ClassVar[Looks]  # the data set decides

    fit = shape = encode = decode = _undecided
