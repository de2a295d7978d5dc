"""Runs by name: FAMILY-METHOD. Every family of `FAMILIES` has every method of `OBJECTIVES`."""

from dataclasses import replace
from difflib import get_close_matches

from anystep.core.errors import UsageError
from anystep.objectives import OBJECTIVES
from anystep.recipes.ablation import PARTS as PARTS
from anystep.recipes.families import FAMILIES as FAMILIES
from anystep.recipes.families import example_data as example_data
from anystep.recipes.families import missing_data as missing_data
from anystep.recipes.method import family_name as family_name
from anystep.recipes.method import from_run as from_run
from anystep.recipes.method import with_method as with_method
from anystep.run.config import Config


def recipe_names() -> list[str]:
    """Return the names of all recipes."""
    return [f"{family}-{method}" for family in FAMILIES for method in OBJECTIVES]


def find_recipe(name: str) -> Config:
    """Return the config of a recipe: the main one of its family as written, or another method at flow matching's cost.

    Raises UsageError that suggests the nearest names.
    """
    if name not in recipe_names():
        near = get_close_matches(name, recipe_names(), n=3, cutoff=0.4)
        hint = f"; did you mean {', '.join(near)}?" if near else "; anystep recipes lists them"
        if "/" in name or name.endswith(".json"):
            hint = ", and no such file"
        raise UsageError(f"no recipe {name!r}{hint}")
    family, _, method = name.partition("-")
    main = FAMILIES[family].main
    if method == main.objective.name:
        return main
    flow = with_method(main, "flow_matching")
    flow = replace(flow, training=replace(flow.training, images=FAMILIES[family].flow_images))
    return with_method(flow, method)  # in whole updates
