"""`anystep evaluate`: score a run's samples against its data."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from anystep.cli.files import check_writable
from anystep.cli.parse import Imports, parse, split
from anystep.cli.scores import METRICS_HELP, print_scores
from anystep.cli.weights import read_several
from anystep.core.device import pick_device
from anystep.core.errors import RunError, UsageError, reason
from anystep.core.registry import import_modules
from anystep.evaluation.evaluate import evaluate
from anystep.evaluation.reference import open_heldout
from anystep.evaluation.scores import keep_scores, write_scores
from anystep.model.generator import Generator
from anystep.model.load import load
from anystep.run.facts import read_config

DESCRIPTION = """Score samples against the run's own training data. Nothing is downloaded.

Scores join those in RUN/scores.json, each with its protocol: a score without it cannot be compared.

example: anystep evaluate runs/digits --steps 1 2 4 8 128 --num 2048 --json scores.json
         anystep evaluate runs/digits --steps 1 4 --guidance 1 1.5 2.5                 which scale is best
         anystep evaluate runs/digits --steps 1 128 --weights ema 0.05 0.1 0.15    which average is best"""


@dataclass(frozen=True)
class Args:
    """Options of `anystep evaluate`."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory."""
    steps: list[int]
    """Sampling budgets, any integers of at least 1."""
    num: int = 2048
    """Number of samples at each budget. A Frechet distance depends on it: compare at equal numbers only."""
    metrics: Annotated[tuple[str, ...] | None, tyro.conf.arg(help=METRICS_HELP)] = None
    guidance: list[float] | None = None
    """Guidance scale W, 1 for none; several: each of them. Without it as trained."""
    guide_twice: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Allow guidance of steps that have it from training, or that were not trained for it."""
    seed: int = 0
    """Seed of the noise."""
    weights: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ema|raw|WIDTH ...")] = ("ema",)
    """One or several. ema: the average kept for evaluation; raw: the trained parameters; a number such as 0.1: the
    power average of this relative width, of a run that was trained with --ema.profiles."""
    checkpoint: int | None = None
    """Step of the checkpoint to use, one that checkpoint.keep_every kept; without it the newest."""
    batch: int = 256
    """Samples drawn at a time."""
    json: Path | None = None
    """Write the scores to this file too."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    imports: Imports = ()


def run(argv: Sequence[str]) -> int:
    """Score, print a table, write JSON; returns 0."""
    args = parse(Args, argv, "evaluate", DESCRIPTION)
    import_modules(args.imports)
    for n in args.steps:
        if n < 1:
            raise UsageError(f"--steps must be at least 1, got {n}")
    if not args.steps:
        raise UsageError("--steps needs at least one budget, e.g. --steps 1 4 128")
    if args.batch < 1:
        raise UsageError(f"--batch must be at least 1, got {args.batch}")
    if args.guidance is not None and not args.guidance:
        raise UsageError("--guidance needs at least one scale, e.g. --guidance 1 1.5 2.5")
    metrics, weights = split(args.metrics), read_several(args.weights)
    if args.json is not None:
        check_writable(args.json)
    device = pick_device(args.device)
    generators = {  # all, before any is scored; in the computer's memory, so that a GPU holds one at a time
        name: load(args.run, weights=each, device="cpu", step=args.checkpoint) for name, each in weights.items()
    }
    source = read_config(args.run).data
    dataset, kept_back = source.open("train"), open_heldout(source)
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.completed:,.0f} / {task.total:,.0f} network calls"),
        BarColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("evaluate", total=None)

        def show(before: int, done: int, total: int) -> None:
            bar.update(task, completed=before * total + done, total=len(weights) * total)

        rows = [
            row
            for before, name in enumerate(weights)
            for row in evaluate(
                moved(generators.pop(name), device),
                dataset,
                steps=args.steps,
                num=args.num,
                seed=args.seed,
                guidance=args.guidance,
                twice=args.guide_twice,
                metrics=metrics or None,
                heldout=kept_back,
                batch=args.batch,
                progress=partial(show, before),
            )
        ]
    print_scores(rows)
    for path in written(rows, args.run / "scores.json", args.json):
        print(f"scores with their protocol: {path}")
    return 0


def moved(generator: Generator, device: torch.device) -> Generator:
    """Return the generator with its network on another device; the one given is of no use after it."""
    network: Any = generator.network
    return replace(generator, network=network.to(device), device=device)


def written(rows: Sequence[Mapping[str, Any]], kept: Path, asked: Path | None) -> list[Path]:
    """Write the rows to the file that was asked for, and add them to those kept in the run; returns where they are.

    A run that cannot be written to, somebody else's perhaps, is worth a warning; a file that was asked for a RunError.
    """
    paths = []
    if asked is not None:
        try:
            write_scores(asked, rows)
        except OSError as error:
            raise RunError(f"cannot write {asked}: {reason(error)}") from error
        paths.append(asked)
    try:
        keep_scores(kept, rows)
        paths.append(kept)
    except (OSError, ValueError) as error:
        print(f"anystep: scores are not kept in {kept}: {reason(error)}", file=sys.stderr)
    return paths
