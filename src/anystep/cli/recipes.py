"""`anystep recipes`: what can be trained by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from anystep.cli.files import write_json
from anystep.cli.parse import parse
from anystep.recipes import RECIPES
from anystep.training.config import to_json

DESCRIPTION = """List the recipes. Any option of one can be changed on the command line: anystep train RECIPE --help.

example: anystep recipes"""


@dataclass(frozen=True)
class Args:
    """Options of `anystep recipes`."""

    json: Path | None = None
    """Write every recipe's complete config to this file."""


def run(argv: Sequence[str]) -> int:
    """Print the list; returns 0."""
    args = parse(Args, argv, "recipes", DESCRIPTION)
    table = Table("recipe", "data", "network", "images", "batch", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, recipe in RECIPES.items():
        config = recipe()
        table.add_row(
            name,
            config.data.name,
            config.network.name,
            f"{config.training.images:,}",
            str(config.training.batch),
        )
    Console().print(table)
    if args.json is not None:
        write_json(args.json, {"recipes": {name: to_json(recipe()) for name, recipe in RECIPES.items()}})
    return 0
