"""The families of recipes: one kind of data each, with every method of `OBJECTIVES`."""

from collections.abc import Mapping
from typing import NamedTuple

from anystep.data import Checkerboard, EightGaussians, Folder, Hub, Npz, TwoMoons
from anystep.objectives import OBJECTIVES, Objective
from anystep.recipes.digits import DIGITS, digits
from anystep.recipes.images import PATHS, PIXELS, images, images32
from anystep.recipes.short import SHORT
from anystep.recipes.vectors import PATH, VECTORS, vectors
from anystep.run.config import Config


class Family(NamedTuple):
    """A main recipe, written out, and what the recipes of the other methods need beside it.

    Every recipe of the family costs what ``flow_images`` images cost flow matching, to half an update. ``settings``
    holds the methods whose options are not their defaults here.
    """

    main: Config
    flow_images: int
    settings: Mapping[str, Objective]

    def objective(self, method: str) -> Objective:
        """Return a method as this family has it."""
        main = self.main.objective
        return main if method == main.name else self.settings.get(method) or OBJECTIVES[method]()


FAMILIES: Mapping[str, Family] = {
    "digits": Family(digits(), 280_000, DIGITS),
    "folder": Family(images(Folder(path=PATHS["folder"])), 20_000_000, PIXELS),
    "npz": Family(images(Npz(path=PATHS["npz"])), 20_000_000, PIXELS),
    "hub": Family(images(Hub(path=PATHS["hub"])), 20_000_000, PIXELS),
    "folder32": Family(images32(Folder(path=PATHS["folder"], size=32)), 3_000_000, SHORT),
    "npz32": Family(images32(Npz(path=PATHS["npz"], size=32)), 3_000_000, SHORT),
    "hub32": Family(images32(Hub(path=PATHS["hub"], size=32)), 3_000_000, SHORT),
    "two_moons": Family(vectors("two_moons", TwoMoons()), 1_000_000, VECTORS),
    "eight_gaussians": Family(vectors("eight_gaussians", EightGaussians()), 1_000_000, VECTORS),
    "checkerboard": Family(vectors("checkerboard", Checkerboard()), 1_000_000, VECTORS),
    "vectors": Family(vectors("vectors", Npz(path=PATH, images="vectors")), 1_000_000, VECTORS),
}
