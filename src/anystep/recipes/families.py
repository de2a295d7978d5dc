"""The families of recipes: one kind of data each, with every method of `OBJECTIVES`."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anystep.data import Checkerboard, Dataset, EightGaussians, Folder, Hub, Npz, TwoMoons
from anystep.data.image_source import ImageSource
from anystep.objectives import Objective
from anystep.recipes.digits import DIGITS, digits
from anystep.recipes.images import PIXELS, SHORT, emoji, images, images32
from anystep.recipes.vectors import VECTORS, vectors
from anystep.run.config import Config


class Family(NamedTuple):
    """A main recipe, written out, and what determines the recipes of the other methods.

    Every recipe of the family costs as much as ``flow_images`` images of flow matching, to half an update. ``settings``
    contains the methods whose options are not their defaults here.
    """

    main: Config
    flow_images: int
    settings: Mapping[str, Objective]


FAMILIES: Mapping[str, Family] = {
    "digits": Family(digits(), 280_000, DIGITS),
    "emoji": Family(emoji(), 120_000, SHORT),
    "folder": Family(images(Folder(path="images")), 20_000_000, PIXELS),
    "npz": Family(images(Npz(path="images.npz")), 20_000_000, PIXELS),
    "hub": Family(images(Hub(path="images.parquet")), 20_000_000, PIXELS),
    "folder32": Family(images32(Folder(path="images", size=32)), 96_000, SHORT),
    "npz32": Family(images32(Npz(path="images.npz", size=32)), 96_000, SHORT),
    "hub32": Family(images32(Hub(path="images.parquet", size=32)), 96_000, SHORT),
    "two_moons": Family(vectors("two_moons", TwoMoons()), 1_000_000, VECTORS),
    "eight_gaussians": Family(vectors("eight_gaussians", EightGaussians()), 1_000_000, VECTORS),
    "checkerboard": Family(vectors("checkerboard", Checkerboard()), 1_000_000, VECTORS),
    "vectors": Family(vectors("vectors", Npz(path="vectors.npz", images="vectors")), 1_000_000, VECTORS),
}


def missing_data(config: Config) -> str | None:
    """Return the path where a recipe expects the user's data, if `--data.path` is not set and nothing is there."""
    path = getattr(config.data, "path", None)
    expected = {getattr(family.main.data, "path", None) for family in FAMILIES.values()}
    return path if path is not None and path in expected and not Path(path).exists() else None


def example_data(config: Config) -> Dataset | None:
    """Return the data of a run; if that of a recipe is missing, random colour images of the size that it sets, or None.

    Raises DataError for data that cannot be used.
    """
    data = config.data
    if missing_data(config) is None:
        return data.open("train")
    if not isinstance(data, ImageSource) or data.size is None:
        return None
    pixels = np.random.default_rng(0).integers(256, size=(256, data.size, data.size, 3), dtype=np.uint8)
    return Dataset.from_arrays("random images", pixels)
