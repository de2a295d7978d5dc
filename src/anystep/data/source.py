"""Where examples come from. A source is a frozen dataclass of options that opens as a `Dataset`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from anystep.core.fields import require
from anystep.data.base import Dataset, Split


@dataclass(frozen=True)
class Source(ABC):
    """A place that examples come from. Subclasses are frozen dataclasses, validated when they are made."""

    name: ClassVar[str]

    def located(self) -> Self:
        """Return the source as it is found from any folder: a local path made absolute."""
        return self

    @abstractmethod
    def open(self, split: Split = "train") -> Dataset:
        """Return the rows to train on, or those held out. Raises DataError for data that cannot be used."""


def absolute(path: str) -> str:
    """Return a path that means the same from any folder."""
    return str(Path(path).expanduser().resolve())


def at_least(field: str, value: int, least: int) -> None:
    """Raise ValueError unless ``value`` is an integer of at least ``least``."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    require(whole and value >= least, field, value, f"an integer of at least {least}")


def share(field: str, value: float) -> None:
    """Raise ValueError unless ``value`` is at least 0 and below 1."""
    require(0 <= value < 1, field, value, "at least 0 and below 1")


def not_empty(field: str, value: str | None) -> None:
    """Raise ValueError for an empty name or path."""
    if value is not None and not value.strip():
        raise ValueError(f"{field} must not be empty, got {value!r}")
