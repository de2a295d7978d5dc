"""Noto emoji, which the package contains: 1,906 colour images of 32 x 32 pixels, 9 classes."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from anystep.core.errors import DataError, reason
from anystep.data.base import Dataset, Split, select_split
from anystep.data.source import HeldOut, Source

#: what it is, its licence and how it was made: emoji-NOTICE.md beside it
FILE = Path(__file__).parent / "files" / "emoji.npz"


@dataclass(frozen=True)
class Emoji(Source):
    """Noto emoji, 32 x 32 in colour on white, without a download. The classes are the groups of Unicode."""

    name: ClassVar[str] = "emoji"

    heldout: HeldOut = 0.2
    """Fraction of the examples held out from training, for evaluation: at least 0 and below 1."""

    def open(self, split: Split = "train") -> Dataset:
        """Return colour images with labels. Raises DataError for an installation without the file."""
        try:
            with np.load(FILE, allow_pickle=False) as arrays:
                images, labels, classes = (arrays[name] for name in ("images", "labels", "classes"))
        except Exception as error:  # a damaged file raises those of zipfile and lzma; a Python may lack lzma
            raise DataError(f"{FILE}: cannot be read ({reason(error)}); install anystep again") from error
        dataset = Dataset.from_arrays(self.name, images, labels, tuple(map(str, classes)))
        return select_split(dataset, self.heldout, split)
