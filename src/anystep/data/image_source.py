"""The options of sources of images; a file of its own, as it needs picture libraries."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from anystep.data.pictures import Decoding
from anystep.data.source import Channels, OnBadImage, Share, Source


@dataclass(frozen=True, kw_only=True)
class ImageSource(Source):
    """The options that every source of images has."""

    size: Annotated[int, Ge(1)] | None = None
    """Side of the square images in pixels: centre crop, then resize. None: images must have one size already."""

    channels: Channels = "auto"
    """auto: grey if every image is stored as grey, else rgb."""

    heldout: Share = 0.0
    """Fraction of the rows held out from training, for evaluation: at least 0 and below 1."""

    on_bad_image: OnBadImage = "error"
    """What to do with an image that cannot be read or has the wrong size: stop, or skip and count it."""

    def decoding(self, workers: int = 0) -> Decoding:
        """Return how images become rows; ``workers`` threads (0: one a core)."""
        return Decoding(self.size, self.channels, self.on_bad_image, workers)
