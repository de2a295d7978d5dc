"""Runs by name: each recipe is a Python function that returns one typed `Config`. `RECIPES` is the one registry."""

from collections.abc import Callable
from difflib import get_close_matches

from anystep.recipes.digits import DIGITS
from anystep.recipes.images import IMAGES
from anystep.recipes.vectors import VECTORS
from anystep.training.config import Config
from anystep.training.errors import UsageError

RECIPES: dict[str, Callable[[], Config]] = {**DIGITS, **IMAGES, **VECTORS}


def find_recipe(name: str) -> Config:
    """Return the config of a recipe. Raises UsageError that offers the nearest names."""
    if name in RECIPES:
        return RECIPES[name]()
    near = get_close_matches(name, RECIPES, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else "anystep recipes lists them"
    raise UsageError(f"no recipe {name!r}; {hint}")


__all__ = ["RECIPES", "find_recipe"]
