"""`anystep train`: train a recipe, or resume a run."""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from anystep.cli.cost import Cost
from anystep.cli.files import check_writable, format_json, write_json
from anystep.cli.parse import Imports, parse_known, parse_with_sections
from anystep.cli.progress import TrainingProgress
from anystep.cli.sections import configured, find_data, sections_of, with_classes
from anystep.core.errors import UsageError
from anystep.core.registry import import_modules
from anystep.recipes import find_recipe, from_run
from anystep.run.config import Config, to_json
from anystep.run.facts import read_config
from anystep.training.signals import stop_on_signal
from anystep.training.trainer import train

DESCRIPTION = """Train a recipe into a run directory. Every part of it is an option, --section.field VALUE.

Ctrl-C and SIGTERM save a checkpoint and stop; --resume continues, with the same result as if it had not stopped.

example: anystep train digits-shortcut --out runs/digits --images 100000 --optimizer.lr 1e-3
         anystep train digits-shortcut --dry-run > own.json"""

#: the recipe whose options `anystep train --help` shows
EXAMPLE = "digits-shortcut"
#: sections of a config, in the order that --help shows
SECTIONS = tuple(f.name for f in dataclasses.fields(Config) if f.name != "recipe")


@dataclass(frozen=True)
class TrainOptions:
    """The options of `anystep train` that have no section."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")] = ""
    """A name (`anystep recipes` lists them), a config.json, or a run directory to train anew."""
    out: Path | None = None
    """Run directory to write; default runs/RECIPE, or with --resume the run directory that RECIPE is."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Continue from the newest checkpoint in --out; starts the run if there is none."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the complete config as JSON and what the run would cost. Trains and writes nothing."""
    init_from: Path | None = None
    """Start with the weights of this run directory, on a network of its kind and size (fine-tuning, or a teacher)."""
    codec: str | None = None
    """Class of the section `codec`, by name; default the recipe's."""
    penalty: str | None = None
    """Class of the section `penalty`, by name; default the recipe's."""
    weight: str | None = None
    """Class of the section `weight`, by name; default the recipe's."""
    images: int | None = None
    """Length of the run in images: short for --training.images; may grow with --resume."""
    batch: int | None = None
    """Images in a batch: short for --training.batch."""
    seed: int | None = None
    """Short for --training.seed."""
    device: str | None = None
    """auto, cpu, cuda, mps: short for --training.device."""
    imports: Imports = ()
    json: Path | None = None
    """Write the last log record and the run's place to this file; with --dry-run the config and the cost."""


def run(argv: Sequence[str]) -> int:
    """Train; returns 0, or 128 + n when signal n stopped the run."""
    args, config = parse_train(argv)
    config = find_data(config)
    if args.json is not None:
        check_writable(args.json)
    if args.dry_run:
        return dry_run(config, args.json)
    out = args.out or default_out(args.recipe, args.resume)
    with TrainingProgress(config) as progress, stop_on_signal(progress.stopping) as stop:
        outcome = train(config, out, resume=args.resume, watch=progress.show, say=progress.say, stop=stop)
    if args.json is not None:
        write_json(args.json, {"run": str(out), "step": outcome.step, **progress.last})
    if outcome.stopped is not None:
        saved = "a checkpoint is saved" if outcome.step else "no update is made yet, the pairs so far are kept"
        print(f"stopped at step {outcome.step} of {config.training.steps}; {saved}", file=sys.stderr)
        print(f"go on with: {shlex.join(['anystep', 'train', str(out), '--resume'])}", file=sys.stderr)
        return 128 + outcome.stopped
    print(f"trained {outcome.step} steps: {out}\nsample it with: anystep sample {out} --steps 1 4 128")
    return 0


def dry_run(config: Config, json: Path | None) -> int:
    """Print the config to standard output, which is then a config.json, and its cost to standard error; returns 0."""
    cost = Cost.of(config)
    values = to_json(config)
    print(format_json(values))
    print(f"{cost}; a dry run trains nothing", file=sys.stderr)
    if json is not None:
        write_json(json, {"config": values, "cost": dataclasses.asdict(cost)})
    return 0


def parse_train(argv: Sequence[str]) -> tuple[TrainOptions, Config]:
    """Return the options and the config that they make. `--import`ed modules are imported. Raises UsageError."""
    args = parse_known(TrainOptions, argv, "train")
    import_modules(args.imports)
    named = list(argv[:1]) == [args.recipe]  # the recipe stands first; without one, --help shows an example's options
    base = starting_config(args) if named else find_recipe(EXAMPLE)
    sections = parse_with_sections(TrainOptions, sections_of(base, SECTIONS), argv, "train", DESCRIPTION)
    if not named:
        raise UsageError(
            f"train begins with a recipe, e.g. anystep train {EXAMPLE} --images 100000; anystep recipes lists them"
        )
    return args, configured(base, sections, args)


def starting_config(args: TrainOptions) -> Config:
    """Return the config that the sections' options change, with the classes and the network that ``args`` choose."""
    config = base_config(args)
    if args.init_from is not None and config.init.run is None:  # a run that resumes has it in its config
        config = from_run(config, args.init_from)
    return with_classes(config, args)


def base_config(args: TrainOptions) -> Config:
    """Return the config that RECIPE is, else that of the run to resume, else RECIPE's."""
    if Path(args.recipe).exists():
        return read_config(Path(args.recipe))
    named = find_recipe(args.recipe)
    out = args.out or default_out(args.recipe, resume=True)
    if not args.resume or not (out / "config.json").exists():
        return named
    stored = read_config(out)
    if stored.recipe != named.recipe:
        raise UsageError(
            f"{out} holds a run of {stored.recipe}, not of {args.recipe}: give its recipe or another --out"
        )
    return stored


def default_out(recipe: str, resume: bool) -> Path:
    """Return the run directory without --out: that of the recipe's name, or the run that resumes."""
    path = Path(recipe)
    if not path.exists():
        return Path("runs") / path.name
    if resume:
        return path if path.is_dir() else path.parent
    return Path("runs") / Path(read_config(path).recipe).name
