"""`anystep train`: train a recipe, or go on with a run."""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from anystep.cli.files import write_json
from anystep.cli.parse import parse
from anystep.cli.progress import TrainingProgress
from anystep.cli.sections import choose, configured, find_data, with_sections
from anystep.core.errors import UsageError
from anystep.recipes import find_recipe, from_run
from anystep.run.config import Config
from anystep.run.facts import read_config
from anystep.training.signals import stop_on_signal
from anystep.training.trainer import train

DESCRIPTION = """Train a recipe into a run directory. Every part of it is an option, --section.field VALUE.

Ctrl-C and SIGTERM save a checkpoint and stop; --resume goes on, with the same result as if it had not stopped.

example: anystep train digits-shortcut --out runs/digits --images 100000 --optimizer.lr 1e-3"""

#: sections of a config, in the order that --help shows
SECTIONS = tuple(f.name for f in dataclasses.fields(Config) if f.name != "recipe")


@dataclass(frozen=True)
class Head:
    """The options that have no section."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """A name (`anystep recipes` lists them), a config.json, or a run directory to train anew."""
    out: Path | None = None
    """Run directory to write; default runs/RECIPE, or with --resume the run directory that RECIPE is."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on from the newest checkpoint in --out; starts the run where there is none."""
    init_from: Path | None = None
    """Begin with the weights of this run directory, on a network of its kind and size (fine-tuning, or a teacher)."""
    images: int | None = None
    """Length of the run in images: short for --training.images; may grow with --resume."""
    batch: int | None = None
    """Images in a batch: short for --training.batch."""
    seed: int | None = None
    """Short for --training.seed."""
    device: str | None = None
    """auto, cpu, cuda, mps: short for --training.device."""
    json: Path | None = None
    """Write the last log record and where the run is to this file."""


def run(argv: Sequence[str]) -> int:
    """Train; returns 0, or 128 + n when signal n stopped the run."""
    named = bool(argv) and not argv[0].startswith("-")
    if not named and "--help" not in argv and "-h" not in argv:
        raise UsageError(
            "train begins with a recipe, e.g. anystep train digits-shortcut --images 100000; anystep recipes lists them"
        )
    args, config = read(argv, named)
    out = args.out or default_out(args.recipe, args.resume)
    config = find_data(config)
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


def default_out(recipe: str, resume: bool) -> Path:
    """Return the run directory where --out does not say: that of the recipe's name, or the run that is to go on."""
    path = Path(recipe)
    if not path.exists():
        return Path("runs") / path.name
    if resume:
        return path if path.is_dir() else path.parent
    return Path("runs") / Path(read_config(path).recipe).name


def read(argv: Sequence[str], named: bool) -> tuple[Head, Config]:
    """Return the arguments and the config that they make."""
    base = base_config(argv, argv[0] if named else "digits-shortcut")
    init = option(argv, "--init-from")
    if init and base.init.run is None:  # a run that goes on has it in its config
        base = from_run(base, Path(init))
    base, words = choose(base, argv)
    args = parse(with_sections(Head, base, SECTIONS), words, "train", DESCRIPTION)
    return args, configured(base, args, SECTIONS)


def option(argv: Sequence[str], name: str) -> str | None:
    """Return the value of an option before the options are known: some decide what the others are."""
    found = [
        word.partition("=")[2] or next(iter(argv[n + 1 : n + 2]), "")
        for n, word in enumerate(argv)
        if word.split("=")[0].replace("_", "-") == name
    ]
    return found[-1] if found else None


def base_config(argv: Sequence[str], recipe: str) -> Config:
    """Return what the options change: the config that RECIPE is, else that of the run to go on with, else RECIPE's."""
    if Path(recipe).exists():
        return read_config(Path(recipe))
    named = find_recipe(recipe)
    given = option(argv, "--out")
    out = Path(given) if given else default_out(recipe, resume=True)
    if "--resume" not in argv or not (out / "config.json").exists():
        return named
    stored = read_config(out)
    if stored.recipe != named.recipe:
        raise UsageError(f"{out} holds a run of {stored.recipe}, not of {recipe}: give its recipe or another --out")
    return stored
