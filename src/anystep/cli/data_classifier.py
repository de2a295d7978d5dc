"""`anystep data classifier`: train a classifier of the data, for distances between its features."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.progress import TextColumn

from anystep.cli.files import check_writable
from anystep.cli.parse import Imports, unset, wrapped
from anystep.cli.progress import RunProgress
from anystep.cli.sections import Command
from anystep.core.errors import UsageError
from anystep.core.fields import require
from anystep.core.registry import import_modules
from anystep.data.source import Source
from anystep.evaluation.features.classifier import facts_path
from anystep.evaluation.features.classifier_training import check_name, train_classifier
from anystep.recipes import FAMILIES, find_recipe, recipe_names
from anystep.run.facts import read_config

DESCRIPTION = """Train a small classifier of images on the data of a recipe or a run, on one thread. Its features are
then what METRIC@classifier compares. Its accuracy is that on held-out examples. --data.field options are as in train.

example: anystep data classifier emoji --out emoji.safetensors
         anystep data classifier runs/mine --data.heldout 0.1 --out mine.safetensors
         anystep evaluate runs/mine --steps 1 4 --metrics frechet@classifier --classifier mine.safetensors"""


@dataclass(frozen=True)
class ClassifierOptions:
    """Options of `anystep data classifier`."""

    recipe: Annotated[str, tyro.conf.Positional, unset("RECIPE|RUN")] = ""
    """First: a family (emoji), a recipe, a config.json or a run directory, for its data."""
    out: Annotated[Path, unset("FILE")] = Path("classifier.safetensors")
    """Weights to write, FILE.safetensors; FILE.json describes them. Default: classifier.safetensors."""
    images: Annotated[int | None, unset("N")] = None
    """Images to train on, repetitions counted. Default: 4 passes, from 60,000 to 400,000."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Seed of weights and order."""
    imports: Imports = ()


def run(argv: Sequence[str]) -> int:
    """Train, write the files, print the accuracy; returns 0."""
    args, source = parse_classifier(argv)
    check_name(args.out)
    require(args.images is None or args.images >= 1, "--images", args.images, "at least 1")
    require(args.seed >= 0, "--seed", args.seed, "at least 0")
    check_writable(args.out, facts_path(args.out))
    heldout, train = source.open("heldout"), source.open("train")
    with RunProgress(TextColumn("{task.completed:,.0f} / {task.total:,.0f} images"), transient=True) as progress:
        task = progress.add_task("train", total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        facts = train_classifier(train, heldout, args.out, images=args.images, seed=args.seed, progress=show)
    print(f"accuracy {facts.accuracy:.4f} on {facts.heldout:,} held-out examples of {facts.data}")
    print(f"weights: {args.out}   what they are: {facts_path(args.out)}")
    print(f"score with it: anystep evaluate RUN --steps 1 4 --metrics frechet@classifier --classifier {args.out}")
    return 0


def parse_classifier(argv: Sequence[str]) -> tuple[ClassifierOptions, Source]:
    """Return the options and the data. As in `sections`, the first call of tyro reads what selects the other fields."""
    prog = "anystep data classifier"
    args, _ = tyro.cli(ClassifierOptions, args=list(argv), prog=prog, return_unknown_args=True, add_help=False)
    import_modules(args.imports)
    recipe_first = list(argv[:1]) == [args.recipe]
    default = Command(ClassifierOptions(), {"data": find_data(args.recipe if recipe_first else "emoji")})
    command = tyro.cli(Command, args=list(argv), default=default, prog=prog, description=wrapped(DESCRIPTION))
    if not recipe_first:
        raise UsageError("data classifier starts with a recipe or a run, e.g. anystep data classifier emoji")
    return args, command.config["data"]


def find_data(name: str) -> Source:
    """Return the data of a family, a recipe, a config or a run. Raises UsageError that offers the nearest recipes."""
    if name in FAMILIES:
        return FAMILIES[name].main.data
    config = find_recipe(name) if name in recipe_names() or not Path(name).exists() else read_config(name)
    return config.data
