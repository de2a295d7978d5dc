"""Runs by name: FAMILY-METHOD. Every family of `FAMILIES` has every method of `OBJECTIVES`, and those of `PAPER`."""

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
from anystep.recipes.paper import PAPER as PAPER
from anystep.recipes.paper import PAPER_SUMMARIES as PAPER_SUMMARIES
from anystep.run.config import Config


def recipe_names() -> list[str]:
    """Return the names of all recipes."""
    return [f"{family}-{method}" for family in FAMILIES for method in (*OBJECTIVES, *PAPER)]


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
    return main if method == main.objective.name else with_method(find_base(family), method)  # in whole updates


def find_base(family: str) -> Config:
    """Return flow matching's run of a family with the section weight of its main recipe, for `with_method`."""
    main = FAMILIES[family].main
    flow = with_method(main, "flow_matching")
    training = replace(flow.training, images=FAMILIES[family].flow_images)
    return replace(flow, training=training, weight=main.weight)
