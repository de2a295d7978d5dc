"""`anystep recipes`: what can be trained by name."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from anystep.cli.files import write_json
from anystep.cli.parse import parse
from anystep.networks import NetworkConfig
from anystep.objectives import OBJECTIVES, Objective
from anystep.recipes import FAMILIES, PARTS, find_recipe, recipe_names
from anystep.run.config import to_json

DESCRIPTION = """List the recipes: FAMILY-METHOD. Any option of one can be changed: anystep train RECIPE --help.

example: anystep recipes"""


@dataclass(frozen=True)
class Args:
    """Options of `anystep recipes`."""

    json: Path | None = None
    """Write every recipe's complete config to this file."""


def run(argv: Sequence[str]) -> int:
    """Print the list; returns 0."""
    args = parse(Args, argv, "recipes", DESCRIPTION)
    console = Console()
    families = Table("family", "data", "network", "images", "batch", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in FAMILIES:
        config = find_recipe(f"{name}-flow_matching")
        length, batch = f"{config.training.images:,}", str(config.training.batch)
        families.add_row(name, config.data.name, network(config.network), length, batch)
    console.print(families)
    console.print("images: flow matching's; the others have as many as cost the same\n", style="dim")
    methods = Table("method", "", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, method in OBJECTIVES.items():
        methods.add_row(name, summary(method))
    console.print(methods)
    print("a recipe is FAMILY-METHOD: anystep train digits-shortcut; all methods of a family: anystep compare digits")
    parts = Table("part of iSM", "", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, what in PARTS.items():
        parts.add_row(name, what)
    console.print(parts)
    print("one after the other: anystep compare digits --methods shortcut,+guidance,+interval,+wavelet,+ot,+twin_ema")
    if args.json is not None:
        write_json(args.json, {"recipes": {name: to_json(find_recipe(name)) for name in recipe_names()}})
    return 0


def network(config: NetworkConfig) -> str:
    """Return a network's kind and size in few words."""
    fields = asdict(config)  # type: ignore[call-overload]
    patch = f", patch {fields['patch']}" if "patch" in fields else ""
    return f"{config.name} {fields['hidden']} x {fields['depth']}{patch}"


def summary(method: type[Objective]) -> str:
    """Return the first line of a method's docstring, without its sources in parentheses."""
    return re.sub(r" \([^)]*\)", "", (method.__doc__ or "").partition("\n")[0])
