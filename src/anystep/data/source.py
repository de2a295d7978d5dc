"""Where examples come from. A source is a frozen dataclass of options that opens as a `Dataset`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from annotated_types import Interval

from anystep.core.fields import NotEmpty
from anystep.core.registry import Option
from anystep.data.base import Dataset, Split

Channels = Literal["auto", "grey", "rgb"]
OnBadImage = Literal["error", "skip"]
#: share of the rows that is held out
Share = Annotated[float, Interval(ge=0, lt=1)]
#: a name or a path
Name = Annotated[str, NotEmpty]


@dataclass(frozen=True)
class Source(Option, ABC, section="data"):
    """A place that examples come from. Subclasses are frozen dataclasses, validated when they are made."""

    def located(self) -> Self:
        """Return the source as it is found from any folder: a local path made absolute."""
        return self

    @abstractmethod
    def open(self, split: Split = "train") -> Dataset:
        """Return the rows to train on, or those held out. Raises DataError for data that cannot be used."""


def absolute(path: str) -> str:
    """Return a path that means the same from any folder."""
    return str(Path(path).expanduser().resolve())
