"""The families of recipes: one kind of data each, with every method of `OBJECTIVES`."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from anystep.objectives import OBJECTIVES, Objective
from anystep.recipes.digits import DIGITS, digits
from anystep.recipes.images import folder, folder32, hub, hub32, npz, npz32
from anystep.recipes.short import SHORT
from anystep.recipes.vectors import VECTORS, checkerboard, eight_gaussians, two_moons, vectors
from anystep.run.config import Config


class Family(NamedTuple):
    """A main recipe, written out, and what the recipes of the other methods need to know beside it.

    Every recipe of the family costs what ``flow_images`` images cost flow matching, to half an update.
    """

    main: Callable[[], Config]
    flow_images: int
    #: methods whose objectives are not their defaults here
    settings: Mapping[str, Objective]

    def objective(self, method: str) -> Objective:
        """Return a method as this family has it."""
        main = self.main().objective
        return main if method == main.name else self.settings.get(method) or OBJECTIVES[method]()


FAMILIES: Mapping[str, Family] = {
    "digits": Family(digits, 280_000, DIGITS),
    "folder": Family(folder, 20_000_000, {}),
    "npz": Family(npz, 20_000_000, {}),
    "hub": Family(hub, 20_000_000, {}),
    "folder32": Family(folder32, 3_000_000, SHORT),
    "npz32": Family(npz32, 3_000_000, SHORT),
    "hub32": Family(hub32, 3_000_000, SHORT),
    "two_moons": Family(two_moons, 1_000_000, VECTORS),
    "eight_gaussians": Family(eight_gaussians, 1_000_000, VECTORS),
    "checkerboard": Family(checkerboard, 1_000_000, VECTORS),
    "vectors": Family(vectors, 1_000_000, VECTORS),
}
