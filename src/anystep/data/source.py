"""Where examples come from. A source is a frozen dataclass of options that opens as a `Dataset`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Self

from annotated_types import Interval

from anystep.core.fields import NotEmpty
from anystep.core.registry import Option
from anystep.data.base import Dataset, Split

#: fraction of the examples that is held out
HeldOut = Annotated[float, Interval(ge=0, lt=1)]
#: a name or a path
Name = Annotated[str, NotEmpty]


@dataclass(frozen=True)
class Source(Option, ABC, section="data"):
    """A place that examples come from. Subclasses are frozen dataclasses, whose fields are checked."""

    def located(self) -> Self:
        """Return the source with its ``path``, if it has one and something is there, made absolute."""
        path = getattr(self, "path", None)
        if not isinstance(path, str) or not Path(path).expanduser().exists():
            return self
        return replace(self, path=str(Path(path).expanduser().resolve()))  # type: ignore[call-arg]

    @abstractmethod
    def open(self, split: Split = "train") -> Dataset:
        """Return the examples to train on, or those held out. Raises DataError for data that cannot be used."""
