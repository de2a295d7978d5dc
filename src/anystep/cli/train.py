"""`anystep train`: train a recipe, or resume a run."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from anystep.cli.files import check_writable, write_json
from anystep.cli.header import print_header
from anystep.cli.parse import ConfigOptions, Flag, unset
from anystep.cli.progress import TrainingProgress
from anystep.cli.sections import configured, parse_with_sections
from anystep.core.errors import UsageError
from anystep.data import Dataset
from anystep.recipes import find_recipe, from_run
from anystep.run.config import Config, to_json
from anystep.run.facts import DataFacts, read_config
from anystep.run.plan import forward_units, pair_units
from anystep.training.signals import stop_on_signal
from anystep.training.trainer import train

DESCRIPTION = """Train a recipe into a run directory. Options that are not given have the recipe's values, which
anystep recipes RECIPE prints. Ctrl-C saves a checkpoint and stops; --resume continues as if it had not.

example: anystep train digits-shortcut --out runs/digits --optimizer.lr 1e-3
         anystep train folder32-shortcut --data.path pictures --out runs/own
         anystep train digits-shortcut --dry-run > own.json"""


@dataclass(frozen=True)
class TrainOptions(ConfigOptions):
    """Options of `anystep train` without the sections of the config."""

    resume: Flag = False
    """Continue the run in --out (RECIPE, if that is a run); start it if there is none."""
    init_from: Annotated[Path | None, unset("RUN")] = None
    """Start from this run's weights, with its network, to fine-tune or distil it."""
    seed: Annotated[int | None, unset("N")] = None
    """Seed of the run."""
    json: Annotated[Path | None, unset("FILE")] = None
    """Write the last log record to this file (--dry-run: config and cost)."""


def run(argv: Sequence[str]) -> int:
    """Train; returns 0, or 128 + n when signal n stopped the run."""
    args, config = parse_train(argv)
    check_writable(args.json)
    if args.dry_run:
        print_dry_run(config, args.json)
        return 0
    out = args.out or default_out(args.recipe, args.resume)
    with TrainingProgress(config) as progress, stop_on_signal(progress.stopping) as stop:

        def begin(config: Config, dataset: Dataset, done: int) -> None:
            print_header(out, progress.say, config, dataset, done)
            progress.begin(done)

        outcome = train(config, out, resume=args.resume, begin=begin, watch=progress.show, say=progress.say, stop=stop)
    if args.json is not None:
        write_json(args.json, {"run": str(out), "step": outcome.step, **progress.last})
    if outcome.stopped is not None:
        saved = "a checkpoint is saved" if outcome.step else "before the first update; the pairs so far are saved"
        print(f"stopped at step {outcome.step} of {config.training.steps}; {saved}", file=sys.stderr)
        print(f"resume with: {shlex.join(['anystep', 'train', str(out), '--resume'])}", file=sys.stderr)
        return 128 + outcome.stopped
    print(f"trained {outcome.step} steps: {out}\n{next_commands(config, out)}")
    return 0


def next_commands(config: Config, out: Path) -> str:
    """Return the commands to go on with, which work for the data of this run."""
    conditions, run = DataFacts.read(out).conditions, shlex.quote(str(out))
    features = any(not conditions.entries[name].drop for name in conditions.features)  # never trained without them
    given = " --condition FEATURES.npz" if features else ""
    return (
        f"samples of it:  anystep sample {run} --steps 1 4 {config.objective.M}{given}\n"
        f"its scores:     anystep evaluate {run} --steps 1 4 {config.objective.M}\n"
        f"a page of both: anystep report {run}"
    )


def parse_train(argv: Sequence[str]) -> tuple[TrainOptions, Config]:
    """Return the options and the config to train. Raises UsageError."""
    args, base, sections = parse_with_sections(
        TrainOptions, argv, "train", DESCRIPTION, "digits-shortcut", starting_config
    )
    return args, configured(base, sections, args)


def starting_config(args: TrainOptions) -> Config:
    """Return the config to override: RECIPE if it is a path, else the resumed run's, else the named recipe.

    With `--init-from`, its network is that run's; a resumed run has it in its config.
    """
    if Path(args.recipe).exists():
        config = read_config(args.recipe)
    else:
        config, out = find_recipe(args.recipe), args.out or default_out(args.recipe, resume=True)
        if args.resume and (out / "config.json").exists():
            config = read_config(out)
            if config.recipe != args.recipe:
                raise UsageError(f"{out} holds a run of {config.recipe}, not of {args.recipe}: choose another --out")
    return config if args.init_from is None or config.init.run is not None else from_run(config, args.init_from)


def default_out(recipe: str, resume: bool) -> Path:
    """Return the run directory without --out: that of the recipe's name, or the run that resumes."""
    path = Path(recipe)
    if path.exists() and resume:
        return path if path.is_dir() else path.parent
    return Path("runs") / Path(read_config(path).recipe if path.exists() else path).name


def print_dry_run(config: Config, path: Path | None) -> None:
    """Print the config to standard output, which is then a config.json, and what the run costs to standard error.

    ``path``: a file to write both to. Opens the data and builds the network. Raises, as training would, UsageError for
    options that do not fit the data, and DataError.
    """
    facts = DataFacts.of(config.data.open("train"), config.codec)
    config.check(facts.shape, facts.conditions)
    network = config.network.build(facts.shape, facts.conditions, config.objective.M)
    values = to_json(config)
    cost = {
        "updates": config.training.steps,
        "images": config.training.steps * config.training.batch,
        "forward_units": forward_units(config),
        "pair_units": pair_units(config),
        "parameters": sum(weight.numel() for weight in network.parameters()),
    }
    print(json.dumps(values, indent=2))
    pairs = " ({pair_units:,} of them to generate pairs)" if cost["pair_units"] else ""
    line = "{updates:,} updates, {images:,} images, {forward_units:,} forward passes" + pairs
    print(f"{line}, {{parameters:,}} parameters; a dry run trains nothing".format(**cost), file=sys.stderr)
    if path is not None:
        write_json(path, {"config": values, "cost": cost})
