"""What a distance between sets is measured on. Deep features implement the same interface."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from anystep.data.base import Normalization


class Features(Protocol):
    """Maps raw examples to vectors. ``name`` and ``resize`` ("none", "bilinear 299") go into the protocol record."""

    @property
    def name(self) -> str:
        """What the features are."""

    @property
    def resize(self) -> str:
        """How images are resized before."""

    def __call__(self, raw: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return float64 [n, F] of raw examples: uint8 [n, H, W, C] or float32 [n, D]."""


@dataclass(frozen=True)
class RawPixels:
    """The example itself, flattened, in the units the network was trained in (unit variance over the data set).

    Right for small images and for vectors, where nothing needs to be downloaded; a distance on raw pixels says little
    about large photographs.
    """

    normalization: Normalization
    name: ClassVar[str] = "raw_pixels"
    resize: ClassVar[str] = "none"

    def __call__(self, raw: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return float64 [n, F], F = C H W or D."""
        x = self.normalization.encode(raw)
        flat: NDArray[np.float64] = x.flatten(1).double().cpu().numpy()
        return flat
