"""What a distance between sets is measured on. Deep features implement the same interface."""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from torch.nn.functional import avg_pool2d

from anystep.codecs import Codec, Rows

#: a covariance of as many features is 128 MiB in float64, and its eigenvalues take seconds
MOST_FEATURES = 4096


class Features(Protocol):
    """Maps decoded examples to vectors. ``name`` and ``resize`` ("none", "area 64x64 to 32x32") go into the record."""

    @property
    def name(self) -> str:
        """What the features are."""

    @property
    def resize(self) -> str:
        """How images are resized before."""

    def __call__(self, rows: Rows) -> NDArray[np.float64]:
        """Return float64 [n, F] of rows in the form that a codec decodes to: uint8 [n, H, W, C] or float32 [n, D]."""


@dataclass(frozen=True)
class RawPixels:
    """The example itself, flattened, as its codec normalises it (unit variance over the data set).

    Right for small images and for vectors, where nothing needs to be downloaded; a distance on raw pixels says little
    about large photographs.
    """

    codec: Codec
    resize: ClassVar[str] = "none"

    @property
    def name(self) -> str:
        """Pixels, or the columns of vectors, each by its own deviation."""
        return "raw_pixels" if self.codec.looks == "picture" else "normalised_columns"

    def __call__(self, rows: Rows) -> NDArray[np.float64]:
        """Return float64 [n, F], F = C H W or D."""
        x = self.codec.normalised(rows)
        flat: NDArray[np.float64] = x.flatten(1).double().cpu().numpy()
        return flat


@dataclass(frozen=True)
class AveragedPixels:
    """Pixels of images of ``shape`` (C, H, W), averaged over squares of ``factor`` by ``factor``; else as `RawPixels`.

    For images whose pixels are too many for a covariance.
    """

    codec: Codec
    shape: tuple[int, ...]
    factor: int
    name: ClassVar[str] = "averaged_pixels"

    @property
    def resize(self) -> str:
        """The method, and the sizes (height x width) before and after."""
        _, height, width = self.shape
        return f"area {height}x{width} to {height // self.factor}x{width // self.factor}"

    def __call__(self, rows: Rows) -> NDArray[np.float64]:
        """Return float64 [n, F], F = C H W / factor^2."""
        x = avg_pool2d(self.codec.normalised(rows), self.factor)
        flat: NDArray[np.float64] = x.flatten(1).double().cpu().numpy()
        return flat


def pixels(codec: Codec, shape: tuple[int, ...], most: int = MOST_FEATURES) -> Features:
    """Return the features to use where nothing else is asked for: raw pixels, or averaged ones above ``most`` features.

    Images are averaged over the smallest squares that divide both sides and leave at most ``most`` features.
    """
    if len(shape) != 3 or math.prod(shape) <= most:
        return RawPixels(codec)
    common = math.gcd(*shape[1:])
    factors = [n for n in range(1, common + 1) if common % n == 0]
    fitting = (n for n in factors if math.prod(shape) // n**2 <= most)
    return AveragedPixels(codec, shape, next(fitting, common))
