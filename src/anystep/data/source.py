"""Where examples come from. A source is a frozen dataclass of options that opens as a `Dataset`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from annotated_types import Ge, Interval

from anystep.core.fields import NotEmpty
from anystep.core.registry import Option
from anystep.data.base import Dataset, Split

if TYPE_CHECKING:
    from anystep.data.pictures import Decoding

Channels = Literal["auto", "grey", "rgb"]
OnBadImage = Literal["error", "skip"]
#: share of the rows that is held out
Share = Annotated[float, Interval(ge=0, lt=1)]
#: a name or a path
Name = Annotated[str, NotEmpty]


@dataclass(frozen=True)
class Source(Option, ABC, section="data"):
    """A place that examples come from. Subclasses are frozen dataclasses, validated when they are made."""

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

    size: Annotated[int, Ge(1)] | None = None
    """Side of the square images in pixels: centre crop, then resize. None: images must have one size already."""

    channels: Channels = "auto"
    """auto: grey if every image is stored as grey, else rgb."""

    flip: bool = False
    """Mirror half of the images left to right in training."""

    heldout: Share = 0.0
    """Share of the rows kept from training, for evaluation: at least 0 and below 1."""

    on_bad_image: OnBadImage = "error"
    """What to do with an image that cannot be read or has the wrong size: stop, or skip and count it."""

    def decoding(self, workers: int = 0) -> "Decoding":
        """Return how images become rows; ``workers`` threads (0: one a core)."""
        from anystep.data.pictures import Decoding  # and with it Pillow

        return Decoding(self.size, self.channels, self.on_bad_image, workers)


def absolute(path: str) -> str:
    """Return a path that means the same from any folder."""
    return str(Path(path).expanduser().resolve())
