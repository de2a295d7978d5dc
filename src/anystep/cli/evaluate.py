"""`anystep evaluate`: score a run's samples against its data."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.progress import TextColumn

from anystep.cli.files import check_writable, write_json
from anystep.cli.parse import RunOptions, check_steps, parse, read_weights, unset
from anystep.cli.progress import RunProgress
from anystep.cli.tables import print_scores
from anystep.core.device import pick_device
from anystep.core.errors import UsageError, reason
from anystep.core.fields import require
from anystep.core.registry import split_commas
from anystep.evaluation.evaluate import evaluate
from anystep.evaluation.metrics import METRICS
from anystep.evaluation.reference import open_heldout
from anystep.evaluation.scores import keep_scores
from anystep.model.load import load
from anystep.run.facts import read_config

DESCRIPTION = """Score samples against the run's own training data. Nothing is downloaded. Scores are added to
RUN/scores.json, each with its protocol: a score without it cannot be compared.

example: anystep evaluate runs/digits --steps 1 2 4 8 128 --json scores.json
         anystep evaluate runs/digits --steps 1 4 --guidance 1 1.5 2.5
         anystep evaluate runs/digits --steps 1 128 --weights ema 0.05 0.1"""

METRICS_HELP = f"{', '.join(METRICS)}, METRIC@SPACE."
MetricNames = Annotated[
    tuple[str, ...] | None, tyro.conf.arg(metavar="NAME ...", help=METRICS_HELP, help_behavior_hint="")
]
CLASSIFIER_HELP = "File of `data classifier`, for METRIC@classifier."
ClassifierFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help=CLASSIFIER_HELP, help_behavior_hint="")]


@dataclass(frozen=True)
class EvaluateOptions(RunOptions):
    """Options of `anystep evaluate`."""

    num: Annotated[int, tyro.conf.arg(metavar="N")] = 2048
    """Samples for each number of steps; compare distances at equal numbers only."""
    metrics: MetricNames = None
    classifier: ClassifierFile = None
    weights: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ("ema",)
    """One or several: ema, raw, or the width of a power EMA such as 0.1 (--ema.profiles)."""
    batch: Annotated[int, tyro.conf.arg(metavar="N")] = 256
    """Samples generated at a time."""
    json: Annotated[Path | None, unset("FILE")] = None
    """Write the scores to this file too."""


def run(argv: Sequence[str]) -> int:
    """Score, print a table, write JSON; returns 0."""
    args = parse(EvaluateOptions, argv, "evaluate", DESCRIPTION)
    check_steps(args.steps)
    require(args.batch >= 1, "--batch", args.batch, "at least 1")
    weights = list(dict.fromkeys(map(read_weights, split_commas(args.weights) or ())))
    if not weights:
        raise UsageError("--weights needs at least one of ema, raw or a width, e.g. --weights ema 0.05 0.1")
    check_writable(args.json)
    device = pick_device(args.device)
    # All are loaded before any is scored, in the computer's memory, so that a GPU holds one at a time.
    generators = [load(args.run, weights=each, device="cpu", step=args.checkpoint) for each in weights]
    source = read_config(args.run).data
    dataset, held_out = source.open("train"), open_heldout(source)
    records: list[dict[str, Any]] = []
    with RunProgress(TextColumn("{task.completed:,.0f} / {task.total:,.0f} network calls"), transient=True) as progress:
        task = progress.add_task("evaluate", total=0)
        for number in range(len(weights)):

            def show(done: int, total: int, before: int = number) -> None:
                progress.update(task, completed=before * total + done, total=len(weights) * total)

            generator = generators.pop(0)
            network: Any = generator.network
            records += evaluate(
                replace(generator, network=network.to(device), device=device),
                dataset,
                steps=args.steps,
                num=args.num,
                seed=args.seed,
                guidance=args.guidance,
                twice=args.guide_twice,
                metrics=split_commas(args.metrics) or None,
                heldout=held_out,
                classifier=args.classifier,
                batch=args.batch,
                progress=show,
            )
    print_scores(records)
    if args.json is not None:
        write_json(args.json, {"scores": records})
        print(f"scores with their protocol: {args.json}")
    path = args.run / "scores.json"
    try:
        keep_scores(path, records)
        print(f"scores with their protocol: {path}")
    except (OSError, ValueError) as error:  # the run may be somebody else's: a warning
        print(f"anystep: scores are not saved in {path}: {reason(error)}", file=sys.stderr)
    return 0
