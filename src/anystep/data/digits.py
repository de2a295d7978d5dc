"""The handwritten digits of scikit-learn: 1,797 grey images of 8x8 pixels, 10 classes."""

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from anystep.data.base import Dataset, Split, select_split
from anystep.data.source import HeldOut, Source


@dataclass(frozen=True)
class Digits(Source):
    """Handwritten digits, 8x8 grey, without a download. The grey levels 0..16 are stored as 0..255."""

    name: ClassVar[str] = "digits"

    heldout: HeldOut = 0.2
    """Fraction of the examples held out from training, for evaluation: at least 0 and below 1."""

    def open(self, split: Split = "train") -> Dataset:
        """Return 8x8 grey images with labels."""
        return select_split(Dataset.from_arrays(self.name, *_arrays()), self.heldout, split)


@cache
def _arrays() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return all images and labels; scikit-learn parses text for them, once in a process is enough."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return np.rint(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8), labels
