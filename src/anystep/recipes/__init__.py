"""Runs by name: FAMILY-METHOD. `FAMILIES` is the one registry of families; every method of `OBJECTIVES` is in each."""

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial

from anystep.core.errors import UsageError
from anystep.objectives import OBJECTIVES
from anystep.recipes.ablation import PARTS, with_parts
from anystep.recipes.digits import digits
from anystep.recipes.images import PATHS, images, small_images
from anystep.recipes.method import Family, change_method, family_name
from anystep.recipes.vectors import SETS, vectors
from anystep.run.config import Config

FAMILIES: dict[str, Callable[[], Family]] = {
    "digits": digits,
    **{source: partial(images, source) for source in PATHS},
    **{f"{source}32": partial(small_images, source) for source in PATHS},
    **{name: partial(vectors, name) for name in SETS},
}


def _recipe(family: str, method: str) -> Config:
    return FAMILIES[family]().recipe(method)


RECIPES: dict[str, Callable[[], Config]] = {
    f"{family}-{method}": partial(_recipe, family, method) for family in FAMILIES for method in OBJECTIVES
}


def with_method(config: Config, method: str) -> Config:
    """Return the run with another method at the same cost, with its family's choices (`recipes/method.py`).

    A name of `PARTS` is an improved shortcut model with the parts up to it; ``config``'s own options stay if it is one.
    """
    if method in PARTS:
        mine = config.objective.name == "improved_shortcut"
        return with_parts(config if mine else with_method(config, "improved_shortcut"), method)
    family = FAMILIES.get(family_name(config))
    return change_method(config, family().objective(method) if family else OBJECTIVES[method]())


def find_recipe(name: str) -> Config:
    """Return the config of a recipe. Raises UsageError that offers the nearest names."""
    if name in RECIPES:
        return RECIPES[name]()
    if "/" in name or name.endswith(".json"):
        raise UsageError(f"no recipe {name!r}, and no such file")
    near = get_close_matches(name, RECIPES, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else "anystep recipes lists them"
    raise UsageError(f"no recipe {name!r}; {hint}")


__all__ = ["FAMILIES", "PARTS", "RECIPES", "Family", "find_recipe", "with_method"]
