"""`anystep recipes`: what can be trained by name."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from shutil import get_terminal_size
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from anystep.cli.files import check_writable, write_json
from anystep.cli.parse import parse, unset
from anystep.cli.tables import print_table
from anystep.core.errors import UsageError, counted
from anystep.data import Dataset
from anystep.networks import NetworkConfig
from anystep.objectives import OBJECTIVES
from anystep.recipes import FAMILIES, PAPER_SUMMARIES, PARTS, example_data, find_recipe, recipe_names
from anystep.run.config import Config, to_json
from anystep.run.plan import forward_units, pair_units
from anystep.training.speed import measure

DESCRIPTION = """List the recipes, FAMILY-METHOD; with a NAME, print one: every option's value, its cost and its
time here. Any option can be changed: anystep train RECIPE --optimizer.lr 1e-3.

example: anystep recipes
         anystep recipes digits-shortcut"""


@dataclass(frozen=True)
class RecipesOptions:
    """Options of `anystep recipes`."""

    name: Annotated[str | None, tyro.conf.Positional, unset("[NAME]")] = None
    """A recipe to print in full, or a family for its main one. Default: list all."""
    data: Annotated[str | None, unset("PATH")] = None
    """Where the data is, for a recipe for your own images or vectors."""
    json: Annotated[Path | None, unset("FILE")] = None
    """Write config and cost to this file; without NAME the configs of all recipes."""


def run(argv: Sequence[str]) -> int:
    """Print the list or one recipe; returns 0."""
    args = parse(RecipesOptions, argv, "recipes", DESCRIPTION)
    check_writable(args.json)
    if args.name is None:
        if args.data is not None:
            raise UsageError("--data is for one recipe: anystep recipes NAME --data PATH")
        print_list()
        written: dict[str, Any] = {"recipes": {name: to_json(find_recipe(name)) for name in recipe_names()}}
    else:
        config = FAMILIES[args.name].main if args.name in FAMILIES else find_recipe(args.name)
        if args.data is not None:
            if not hasattr(config.data, "path"):
                raise UsageError(f"{config.recipe} has its own data: omit --data")
            config = replace(config, data=replace(config.data, path=args.data))  # type: ignore[call-arg]
        print_config(config)
        written = {"recipe": config.recipe, "config": to_json(config), "cost": print_cost(config)}
    if args.json is not None:
        write_json(args.json, written)
    return 0


def print_config(config: Config) -> None:
    """Print every field as the option that sets it."""
    print(f"recipe {config.recipe}")
    for section, fields in to_json(config).items():
        if section in ("recipe", "version"):
            continue
        print(f"\n{section} {fields.pop('name', '')}".rstrip())
        width = max(map(len, fields), default=0)
        for name, value in fields.items():
            shown = " ".join(map(str, value)) if isinstance(value, list) else value
            print(f"  --{section}.{name.replace('_', '-'):<{width}}  {shown}".rstrip())


def print_cost(config: Config) -> dict[str, Any]:
    """Print what a run costs, its network's size and how long it takes here; returns them. Takes about two seconds."""
    training, total, pairs = config.training, forward_units(config), pair_units(config)
    per_image = (total - pairs) / (training.steps * training.batch)
    length = f"{counted(training.steps, 'update')} of {counted(training.batch, 'image')}"
    print(f"\ncost        {per_image:.4g} forward passes per image; a backward pass counts 2")
    print(f"            {total:,} in all: {length}{', and pairs' if pairs else ''}")
    cost = {"forward_passes": total, "forward_passes_per_image": per_image}
    dataset = example_data(config)
    if dataset is None:
        print("parameters  depend on the data, which is not here, and so does the time: add --data PATH")
        return cost
    speed = measure(config, dataset)
    print(f"parameters  {speed.parameters:,}, for {dataset.name} of {describe_examples(dataset)}")
    threads = f", threads: {torch.get_num_threads()}" if speed.device == "cpu" else ""
    duration = timedelta(seconds=max(1, round(speed.seconds)))
    print(f"time        about {duration} ({speed.device}{threads}; measured on {counted(speed.images, 'image')})")
    return cost | speed._asdict()


def print_list() -> None:
    """Print the families, the methods and the parts of iSM."""
    configs = {name: find_recipe(f"{name}-flow_matching") for name in FAMILIES}
    columns = {
        "family": list(configs),
        "data": [config.data.name for config in configs.values()],
        "network": [describe_network(config.network) for config in configs.values()],
        "images": [f"{config.training.images:,}" for config in configs.values()],
        "batch": [str(config.training.batch) for config in configs.values()],
    }
    if get_terminal_size().columns < 72:
        columns = {head: columns[head] for head in ("family", "images")}
    print_table(columns, numbers=("images", "batch"), whole=("family",))
    print("images: flow matching's; the other methods have as many as cost the same\n")
    summaries = [" ".join((method.__doc__ or "").partition("\n\n")[0].split()) for method in OBJECTIVES.values()]
    without_sources = [re.sub(r" \([^)]*\)", "", text) for text in summaries]
    methods = dict(zip(OBJECTIVES, without_sources, strict=True)) | PAPER_SUMMARIES
    print_table({"method": methods, "": methods.values()}, whole=("method",))
    print("a recipe is FAMILY-METHOD: anystep train digits-shortcut; all methods of a family: anystep compare digits")
    print("one recipe in full, with its cost and time on this machine: anystep recipes digits-shortcut")
    print_table({"part of iSM": PARTS, "": PARTS.values()}, whole=("part of iSM",))
    print("one after the other: anystep compare digits --methods shortcut,+guidance,+interval,+wavelet,+ot,+twin_ema")


def describe_examples(dataset: Dataset) -> str:
    """Return the size of a data set's examples, and how many classes they have."""
    classes = "1 class" if dataset.num_classes == 1 else f"{dataset.num_classes or 'no'} classes"
    shape = " x ".join(map(str, dataset.read(np.zeros(1, np.int64)).shape[1:]))
    return f"{shape}, {classes}"


def describe_network(config: NetworkConfig) -> str:
    """Return a network's kind and size in few words."""
    sizes = asdict(config)  # type: ignore[call-overload]
    patch = f", patch {sizes['patch']}" if "patch" in sizes else ""
    size = " x ".join(str(sizes[name]) for name in ("hidden", "depth") if name in sizes)
    return f"{config.name} {size}{patch}"
