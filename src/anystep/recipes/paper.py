"""Methods as their papers have them, where the recipes do more: names of recipes, and of methods to compare."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from anystep.objectives.shortcut import StepLevels

#: name -> the method
PAPER = {"shortcut_paper": "shortcut", "improved_shortcut_paper": "improved_shortcut"}
#: what `anystep recipes` says about them
PAPER_SUMMARIES = {
    "shortcut_paper": "shortcut as in Frans et al. 2024: every example counts the same, noise is independent of data",
    "improved_shortcut_paper": "improved_shortcut with all five parts of its paper, and nothing else",
}
#: options that no paper here has; as published they are at their defaults
LEVERS = ("share_start", "share_change", "share_shape", "level", "roll_out", "through_state")
#: options that papers have: Frans et al. 2024, Table 3; and terms of equal weight (iSM, second-hand)
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "shortcut": {"share": 0.25},
    "improved_shortcut": {"share": 1 / 3, "guided_share": 1 / 3, "plain_share": None},
}


def as_published(objective: StepLevels) -> StepLevels:
    """Return a method as its paper has it: its fractions of the batch, as many examples of every level.

    M, the distribution of t and the largest W stay: they are sizes of the run.
    """
    levers = {name: getattr(StepLevels, name) for name in LEVERS}
    return replace(objective, **levers, **PUBLISHED[objective.name])
