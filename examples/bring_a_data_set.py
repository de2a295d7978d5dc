"""Bring a data set of your own.

    python examples/bring_a_data_set.py [FOLDER]

Discs of any size anywhere: each row is computed when it is read, from its number alone, and no array is ever stored. A
source is a frozen dataclass: its fields are options, and `open` returns the rows.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

import anystep
from anystep.codecs import Pixels
from anystep.data.base import Split, select_split


@dataclass(frozen=True)
class Discs(anystep.Source):
    """Grey pictures of one disc each; the class is whether it lies in the left or the right half."""

    side: Annotated[int, Ge(8)] = 8
    """Height and width in pixels."""
    num: Annotated[int, Ge(2)] = 4096
    """Number of pictures."""

    def picture(self, number: int) -> np.ndarray[Any, Any]:
        """Return picture ``number``, uint8 [side, side, 1]: the same whenever it is read."""
        row, column, radius = np.random.default_rng(number).uniform([0, 0, 0.15], [1, 0.5, 0.3])
        y, x = (np.mgrid[: self.side, : self.side] + 0.5) / self.side
        inside = radius - np.hypot(y - row, x - column - 0.5 * (number % 2))
        return (255 * np.clip(0.5 + inside * self.side, 0, 1)).astype(np.uint8)[..., None]

    def open(self, split: Split = "train") -> anystep.Dataset:
        """Return the rows; ``fingerprint`` names their content, so that nobody has to read all of them."""
        content = f"discs {self.side} {self.num}"
        options = {"codec": Pixels(), "labels": np.arange(self.num) % 2, "class_names": ["left", "right"]}
        rows = anystep.Dataset.from_function("discs", self.num, self.picture, fingerprint=content, **options)
        return select_split(rows, 0.1, split)


if __name__ == "__main__":
    run = Path(*sys.argv[1:] or [tempfile.mkdtemp()]).resolve() / "discs"
    config = replace(anystep.find_recipe("digits-shortcut"), data=Discs())
    anystep.train(replace(config, training=replace(config.training, images=1_280, device="cpu")), run)
    sample = [sys.executable, "-m", "anystep", "sample", str(run), "--steps", "1", "4", "--import", "bring_a_data_set"]
    subprocess.run(sample, check=True, cwd=Path(__file__).parent)
