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
#: fraction of self-consistency examples in Frans et al. 2024, Table 3
SHARE = 0.25


def as_published(objective: StepLevels) -> StepLevels:
    """Return a method without what its paper does not have: as many examples of every level, a constant share.

    The share of a shortcut model is the paper's, 1/4. M and the distribution of t stay: they are sizes of the run.
    """
    share = SHARE if objective.name == "shortcut" else objective.share
    constant = replace(objective, share=share, share_start=None, share_change=(0.0, 1.0), share_shape="linear")
    return replace(constant, level="equal", roll_out=1, through_state=False)
