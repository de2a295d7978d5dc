"""The names, groups and line styles of methods in figures and tables, grouped as in Table 1 of Frans et al. 2024."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from anystep.figures.canvas import SERIES

TWO_PHASES, END_TO_END, BEYOND, ABLATION = "two phases", "end to end", "beyond the paper", "iSM, part by part"

#: method -> group and colour, in the order of the table
METHODS = {
    "progressive_distillation": (TWO_PHASES, "#d9480f"),
    "consistency_distillation": (TWO_PHASES, "#b7860b"),
    "reflow": (TWO_PHASES, "#c2255c"),
    "diffusion": (END_TO_END, "#8a94a3"),
    "flow_matching": (END_TO_END, "#1c2430"),
    "consistency_training": (END_TO_END, "#3aa5d8"),
    "live_reflow": (END_TO_END, "#0f9d76"),
    "shortcut_paper": (END_TO_END, "#74c0fc"),
    "shortcut": (END_TO_END, "#0b6bcb"),
    "improved_shortcut_paper": (BEYOND, "#99e9f2"),
    "improved_shortcut": (BEYOND, "#15aabf"),
    "ict": (BEYOND, "#74a815"),
    "mean_flow": (BEYOND, "#a33ea1"),
    "alpha_flow": (BEYOND, "#6741d9"),
    "imm": (BEYOND, "#e64fa0"),
    "+guidance": (ABLATION, "#15aabf"),
    "+interval": (ABLATION, "#0f9d76"),
    "+wavelet": (ABLATION, "#74a815"),
    "+ot": (ABLATION, "#d9480f"),
    "+twin_ema": (ABLATION, "#c2255c"),
}
#: group -> dashes of the line, and marker
_GROUPS: dict[str, tuple[Any, str]] = {
    TWO_PHASES: ((0, (5, 2)), "s"),
    END_TO_END: ("-", "o"),
    BEYOND: ((0, (1, 1.2)), "^"),
    ABLATION: ("-", "D"),
}


class LineStyle(NamedTuple):
    """A method's line in a figure."""

    colour: str
    dashes: Any
    marker: str
    width: float


def by_group(methods: Iterable[str]) -> dict[str, list[str]]:
    """Return the methods by group, in the table's order; methods that it does not have come last."""
    present = set(methods)
    groups: dict[str, list[str]] = {}
    for name in [*(name for name in METHODS if name in present), *sorted(present - METHODS.keys())]:
        groups.setdefault(METHODS.get(name, (BEYOND,))[0], []).append(name)
    return groups


def line_style(method: str) -> LineStyle:
    """Return a method's line style. The shortcut model has the widest line."""
    group, colour = METHODS.get(method, (BEYOND, SERIES[sum(map(ord, method)) % len(SERIES)]))
    return LineStyle(colour, *_GROUPS[group], 3.0 if method == "shortcut" else 1.6)


def display_name(method: str) -> str:
    """Return a method's name with spaces in place of underscores, and "as published" for `_paper`."""
    return method.replace("_paper", " as published").replace("_", " ")


def steps_name(steps: int) -> str:
    """Return "1 step", "2 steps"."""
    return f"{steps} step{'s' if steps != 1 else ''}"
