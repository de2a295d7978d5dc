"""`anystep recipes`: what can be trained by name."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from anystep.cli.files import write_json
from anystep.cli.parse import parse
from anystep.core.errors import UsageError
from anystep.networks import NetworkConfig
from anystep.objectives import OBJECTIVES, Objective
from anystep.recipes import FAMILIES, PARTS, example_data, find_recipe, recipe_names
from anystep.run.config import Config, to_json
from anystep.run.facts import DataFacts
from anystep.run.plan import forward_units, pair_units
from anystep.training.speed import measure

DESCRIPTION = """List the recipes, FAMILY-METHOD; with a NAME, print one: every option's value, its cost and time here.

Any option of a recipe can be changed: anystep train RECIPE --help.

example: anystep recipes
         anystep recipes digits-shortcut"""


@dataclass(frozen=True)
class Args:
    """Options of `anystep recipes`."""

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]")] = None
    """A recipe to print in full, or a family for its main one; without, all are listed."""
    data: str | None = None
    """Where the data is, for a recipe for your own images or vectors."""
    json: Path | None = None
    """Write the complete config to this file, with what it costs; without NAME those of every recipe."""


def run(argv: Sequence[str]) -> int:
    """Print the list or one recipe; returns 0."""
    args = parse(Args, argv, "recipes", DESCRIPTION)
    if args.name is not None:
        return show(args.name, args.data, args.json)
    if args.data is not None:
        raise UsageError("--data is for one recipe: anystep recipes NAME --data PATH")
    print_list()
    if args.json is not None:
        write_json(args.json, {"recipes": {name: to_json(find_recipe(name)) for name in recipe_names()}})
    return 0


def show(name: str, data: str | None, json: Path | None) -> int:
    """Print a recipe's complete config and what it costs; returns 0."""
    config = FAMILIES[name].main if name in FAMILIES else find_recipe(name)
    if data is not None:
        if not hasattr(config.data, "path"):
            raise UsageError(f"{config.recipe} has its own data: leave --data out")
        config = replace(config, data=replace(config.data, path=data))  # type: ignore[call-arg]
    print_config(config)
    cost = print_cost(config)
    if json is not None:
        write_json(json, {"recipe": config.recipe, "config": to_json(config), "cost": cost})
    return 0


def print_config(config: Config) -> None:
    """Print every field as the option that sets it."""
    values = {name: value for name, value in to_json(config).items() if name not in ("recipe", "version")}
    print(f"recipe {config.recipe}")
    for section, fields in values.items():
        print(f"\n{section} {fields.pop('name', '')}".rstrip())
        width = max((len(name) for name in fields), default=0)
        for name, value in fields.items():
            shown = " ".join(map(str, value)) if isinstance(value, list) else value
            print(f"  --{section}.{name.replace('_', '-'):<{width}}  {shown}".rstrip())


def print_cost(config: Config) -> dict[str, Any]:
    """Print what a run costs, its network's size and how long it takes here; returns them. Takes about two seconds."""
    training, total, pairs = config.training, forward_units(config), pair_units(config)
    per_image = (total - pairs) / (training.steps * training.batch)
    length = f"{training.steps:,} updates of {training.batch:,} images"
    print(f"\ncost        {per_image:.4g} forward passes an image, its backward pass counting 2")
    print(f"            {total:,} in all: {length}{', and pairs' if pairs else ''}")
    found = {"forward_passes": total, "forward_passes_per_image": per_image}
    dataset = example_data(config)
    if dataset is None:
        print("parameters  depend on the data, which is not here, and so does the time: add --data PATH")
        return found
    speed = measure(config, dataset)
    classes = f"{dataset.num_classes} classes" if dataset.num_classes else "no classes"
    shape = " x ".join(map(str, DataFacts.of(dataset, config.codec).shape))
    print(f"parameters  {speed.parameters:,}, for {dataset.name} of {shape}, {classes}")
    threads = f", threads: {torch.get_num_threads()}" if speed.device == "cpu" else ""
    print(f"time        about {duration(speed.seconds)} ({speed.device}{threads}; measured on {speed.images:,} images)")
    return found | speed._asdict()


def duration(seconds: float) -> str:
    """Return a length of time in its unit, to two digits."""
    units = (("days", 86_400), ("hours", 3_600), ("minutes", 60))
    unit, length = next((each for each in units if seconds >= 2 * each[1]), ("seconds", 1))
    return f"{float(f'{seconds / length:.2g}'):,g} {unit}"


def print_list() -> None:
    """Print the families, the methods and the parts of iSM."""
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
    print("one recipe in full, with its cost and time on this machine: anystep recipes digits-shortcut")
    parts = Table("part of iSM", "", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, what in PARTS.items():
        parts.add_row(name, what)
    console.print(parts)
    print("one after the other: anystep compare digits --methods shortcut,+guidance,+interval,+wavelet,+ot,+twin_ema")


def network(config: NetworkConfig) -> str:
    """Return a network's kind and size in few words."""
    fields = asdict(config)  # type: ignore[call-overload]
    patch = f", patch {fields['patch']}" if "patch" in fields else ""
    return f"{config.name} {fields['hidden']} x {fields['depth']}{patch}"


def summary(method: type[Objective]) -> str:
    """Return the first line of a method's docstring, without its sources in parentheses."""
    return re.sub(r" \([^)]*\)", "", (method.__doc__ or "").partition("\n")[0])
