"""Methods as their papers have them, where the recipes do more: names of recipes, and of methods to compare."""

from dataclasses import replace

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
#: fraction of self-consistency examples in Frans et al. 2024, Table 3
SHARE = 0.25


def as_published(objective: StepLevels) -> StepLevels:
    """Return a method without what its paper does not have: as many examples of every level, a constant share.

    The share of a shortcut model is the paper's, 1/4. M and the distribution of t stay: they are sizes of the run.
    """
    share = SHARE if objective.name == "shortcut" else objective.share
    return replace(objective, share=share, **{name: getattr(StepLevels, name) for name in LEVERS})
