"""The options of sources of images; a file of its own, as it needs picture libraries."""

from dataclasses import dataclass

from anystep.core.fields import one_of
from anystep.data.images import Channels
from anystep.data.pictures import Decoding, OnBadImage
from anystep.data.source import Source, at_least, share


@dataclass(frozen=True, kw_only=True)
class ImageSource(Source):
    """The options that every source of images has."""

    size: int | None = None
    """Side of the square images in pixels: centre crop, then resize. None: images must have one size already."""

    channels: Channels = "auto"
    """auto: grey if every image is stored as grey, else rgb."""

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
