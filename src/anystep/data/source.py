"""Where examples come from. A source is a frozen dataclass of options that opens as a `Dataset`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from anystep.core.fields import one_of, require
from anystep.data.base import Dataset, Split
from anystep.data.images import Channels
from anystep.data.pictures import Decoding, OnBadImage


@dataclass(frozen=True)
class Source(ABC):
    """A place that examples come from. Subclasses are frozen dataclasses, validated when they are made."""

    name: ClassVar[str]

    @property
    def flip(self) -> bool:
        """Whether training may mirror rows left to right; sources where that makes sense have it as a field."""
        return False

    def located(self) -> Self:
        """Return the source as it is found from any folder: a local path made absolute."""
        return self

    @abstractmethod
    def open(self, split: Split = "train") -> Dataset:
        """Return the rows to train on, or those held out. Raises DataError for data that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class ImageSource(Source):
    """The options that every source of images has."""

    size: int | None = None
    """Side of the square images in pixels: centre crop, then resize. None: images must have one size already."""

    channels: Channels = "auto"
    """auto: grey if every image is stored as grey, else rgb."""

    flip: bool = False
    """Mirror half of the images left to right in training."""

    heldout: float = 0.0
    """Share of the rows kept from training, for evaluation: at least 0 and below 1."""

    on_bad_image: OnBadImage = "error"
    """What to do with an image that cannot be read or has the wrong size: stop, or skip and count it."""

    def __post_init__(self) -> None:
        if self.size is not None:
            at_least("size", self.size, 1)
        one_of("channels", self.channels, Channels)
        share("heldout", self.heldout)
        one_of("on_bad_image", self.on_bad_image, OnBadImage)

    def decoding(self, workers: int = 0) -> Decoding:
        """Return how images become rows; ``workers`` threads (0: one a core)."""
        return Decoding(self.size, self.channels, self.on_bad_image, workers)


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
