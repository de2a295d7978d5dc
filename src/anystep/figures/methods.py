"""How methods stand side by side: their groups and order as in Table 1 of Frans et al. 2024, and what each line looks
like."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from anystep.figures.canvas import SERIES

TWO_PHASES, END_TO_END, BEYOND, ABLATION = "two phases", "end to end", "beyond the paper", "iSM, part by part"

#: method -> group and colour, in the order of the table
_METHODS = {
    "progressive_distillation": (TWO_PHASES, "#d9480f"),
    "consistency_distillation": (TWO_PHASES, "#b7860b"),
    "reflow": (TWO_PHASES, "#c2255c"),
    "diffusion": (END_TO_END, "#8a94a3"),
    "flow_matching": (END_TO_END, "#1c2430"),
    "consistency_training": (END_TO_END, "#3aa5d8"),
    "live_reflow": (END_TO_END, "#0f9d76"),
    "shortcut": (END_TO_END, "#0b6bcb"),
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
#: group -> line style and marker
_STYLES: dict[str, tuple[Any, str]] = {
    TWO_PHASES: ((0, (5, 2)), "s"),
    END_TO_END: ("-", "o"),
    BEYOND: ((0, (1, 1.2)), "^"),
    ABLATION: ("-", "D"),
}


@dataclass(frozen=True)
class Look:
    """A method's line in a figure."""

    colour: str
    style: Any
    marker: str
    width: float


def grouped(methods: Iterable[str]) -> dict[str, list[str]]:
    """Return the methods by group, both in the order of Table 1 of Frans et al. 2024; methods it does not know come
    last."""
    there = set(methods)
    groups: dict[str, list[str]] = {}
    for name in [*(name for name in _METHODS if name in there), *sorted(there - _METHODS.keys())]:
        groups.setdefault(group(name), []).append(name)
    return groups


def group(method: str) -> str:
    """Return a method's group."""
    return _METHODS.get(method, (BEYOND, ""))[0]


def known(method: str) -> bool:
    """Tell whether a name is a method's that has a look of its own."""
    return method in _METHODS


def look(method: str) -> Look:
    """Return what a method's line looks like; the shortcut model's is the one to follow."""
    colour = _METHODS[method][1] if known(method) else SERIES[sum(map(ord, method)) % len(SERIES)]
    style, marker = _STYLES[group(method)]
    return Look(colour, style, marker, 3.0 if method == "shortcut" else 1.6)


def words(name: str) -> str:
    """Return a method's name as people read it."""
    return name.replace("_", " ")
