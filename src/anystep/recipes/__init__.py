"""Runs by name: FAMILY-METHOD. `FAMILIES` is the registry of families; every method of `OBJECTIVES` is in each."""

from dataclasses import replace
from difflib import get_close_matches

from anystep.core.errors import UsageError
from anystep.objectives import OBJECTIVES
from anystep.recipes.ablation import PARTS, with_parts
from anystep.recipes.examples import example_data
from anystep.recipes.families import FAMILIES, Family
from anystep.recipes.method import family_name, from_run, with_method
from anystep.run.config import Config


def recipe_names() -> list[str]:
    """Return the names of all recipes."""
    return [f"{family}-{method}" for family in FAMILIES for method in OBJECTIVES]


def find_recipe(name: str) -> Config:
    """Return the config of a recipe: a family's main one as it is written, another method's at flow matching's cost.

    Raises UsageError that offers the nearest names.
    """
    family, _, method = name.partition("-")
    if family not in FAMILIES or method not in OBJECTIVES:
        raise unknown_recipe(name)
    main = FAMILIES[family].main
    if method == main.objective.name:
        return main
    flow = with_method(main, "flow_matching")
    flow = replace(flow, training=replace(flow.training, images=FAMILIES[family].flow_images))
    return with_method(flow, method)  # in whole updates


def unknown_recipe(name: str) -> UsageError:
    """Return the error for a name that no recipe has."""
    if "/" in name or name.endswith(".json"):
        return UsageError(f"no recipe {name!r}, and no such file")
    near = get_close_matches(name, recipe_names(), n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else "anystep recipes lists them"
    return UsageError(f"no recipe {name!r}; {hint}")


__all__ = [
    "FAMILIES",
    "PARTS",
    "Family",
    "example_data",
    "family_name",
    "find_recipe",
    "from_run",
    "recipe_names",
    "with_method",
    "with_parts",
]
