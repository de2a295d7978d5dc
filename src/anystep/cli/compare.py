"""`anystep compare`: every method on your own data at equal compute."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import get_terminal_size
from typing import Annotated

import numpy as np
import tyro
from PIL import Image

from anystep.cli.evaluate import ClassifierFile, MetricNames
from anystep.cli.files import check_writable, write_json, write_png
from anystep.cli.parse import ConfigOptions, unset
from anystep.cli.progress import ComparisonProgress
from anystep.cli.sections import configured, parse_with_sections
from anystep.cli.tables import print_table
from anystep.comparison.compare import Choices, compare, plan_checked, with_earlier
from anystep.comparison.outcome import Comparison, same_noise
from anystep.comparison.trials import Score, Trial
from anystep.core.errors import UsageError, did_you_mean
from anystep.core.fields import require
from anystep.core.files import write_text
from anystep.evaluation.protocol import summarise
from anystep.figures.canvas import MISSING, can_draw, to_image
from anystep.figures.grids import methods_figure
from anystep.figures.methods import by_group, display_name
from anystep.figures.scatter import scatter
from anystep.objectives import OBJECTIVES
from anystep.recipes import FAMILIES, family_name, find_base, find_recipe, recipe_names, with_method
from anystep.report.comparison import comparison_figure
from anystep.report.table1 import table_text
from anystep.run.config import Config
from anystep.run.facts import DataFacts, read_config
from anystep.run.plan import forward_units
from anystep.training.signals import stop_on_signal

DESCRIPTION = """Train every method at equal compute, with the same network and optimizer, score each, and write
tables and figures. Ctrl-C saves checkpoints; the same command resumes, and repeats nothing that is done.

example: anystep compare digits
         anystep compare digits-shortcut --steps 1 4 --seeds 0 1 --jobs 2
         anystep compare two_moons --methods shortcut,flow_matching
         anystep compare digits --methods shortcut,+guidance,+interval"""

#: images, or points, in the figure of samples
IMAGES, POINTS = 4, 1000
#: characters of the table
WIDTH = 100


@dataclass(frozen=True)
class CompareOptions(ConfigOptions, Choices):
    """Options of `anystep compare` without the sections of the config."""

    recipe: Annotated[str, tyro.conf.Positional, unset("RECIPE")] = ""
    """First: a family (digits), a recipe, config.json or run."""
    methods: Annotated[Sequence[str] | None, unset("NAME ...")] = None
    """Methods, by spaces or commas (see anystep recipes)."""
    without: Annotated[Sequence[str], unset("NAME ...")] = ()
    seeds: Annotated[Sequence[int], tyro.conf.arg(metavar="N ...")] = Choices.seeds
    """Seeds; several give mean and spread."""
    steps: Annotated[Sequence[int], tyro.conf.arg(metavar="N ...")] = Choices.steps
    """Numbers of sampling steps."""
    num: Annotated[int, tyro.conf.arg(metavar="N")] = Choices.num
    """Samples per score."""
    metrics: MetricNames = None
    classifier: ClassifierFile = None
    guidance: Annotated[float | None, unset("W")] = None
    """Scale for methods that take it as input. Default: 1."""
    images: Annotated[int | None, unset("N")] = None
    """Cost of a run, as flow matching's number of images."""
    jobs: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Runs at a time, in processes."""
    out: Annotated[Path | None, unset("DIR")] = None
    """Folder to write. Default: runs/compare-FAMILY."""
    json: Annotated[Path | None, unset("FILE")] = None
    """Write what compare.json contains to this file too."""


def run(argv: Sequence[str]) -> int:
    """Compare, print the table, write the files; returns 0, 1 when a run failed, 128 + n when signal n stopped it."""
    args, base = parse_compare(argv)
    require(args.jobs >= 1, "--jobs", args.jobs, "at least 1")
    out = args.out or Path("runs") / f"compare-{Path(family_name(base)).name}"
    if (out / "config.json").exists():
        raise UsageError(f"{out} is a run directory: the comparison needs a separate folder, another --out")
    if args.dry_run:
        print_trials(plan_checked(base, out, args), out)
        return 0
    check_writable(*(out / name for name in ("compare.json", "table.txt", "scores.png", "samples.png")), args.json)
    if not can_draw():
        print(f"{MISSING}; scores are not plotted", file=sys.stderr)
    with ComparisonProgress() as progress, stop_on_signal(progress.stopping) as stop:
        comparison = compare(base, out, args, jobs=args.jobs, imports=args.imports, watch=progress.show, stop=stop)
    command = shlex.join(["anystep", "compare", *argv])
    if stop.signal is not None and not comparison.complete:
        done = sum(bool(result.scores) for result in comparison.results)
        print(f"stopped; {done} of {len(comparison.results)} runs are done, and checkpoints saved", file=sys.stderr)
        print(f"resume with: {command}", file=sys.stderr)
        return 128 + stop.signal
    comparison, dropped = with_earlier(comparison, out, args)
    if dropped:
        why = "runs are gone or changed, or --num, --metrics or --guidance differ"
        print(f"{dropped} earlier scores of {out / 'compare.json'} are dropped: {why}", file=sys.stderr)
    write_comparison(comparison, out, command, args.json)
    return 1 if comparison.failures() else 0


def parse_compare(argv: Sequence[str]) -> tuple[CompareOptions, Config]:
    """Return the options, and the run that sets data, sizes and compute; its own method has its own options.

    Sections apply to flow matching's run at the same cost, so that --images counts its images whatever RECIPE is.
    Raises UsageError.
    """
    args, flow, sections = parse_with_sections(
        CompareOptions,
        argv,
        "compare",
        DESCRIPTION,
        "digits",
        lambda args: find_bases(args.recipe)[1],
        without=("objective", "init"),
    )
    for name in ("step_encoding", "guidance_input", "prediction"):
        if getattr(sections["network"], name, None) != getattr(flow.network, name, None):
            raise UsageError(f"--network.{name.replace('_', '-')} is set by each method: omit it")
    if sections["training"].seed != flow.training.seed:
        raise UsageError("--training.seed is replaced by --seeds: give that")
    base = configured(flow, sections, args)
    given, flow = find_bases(args.recipe)
    return args, base if given is flow else with_method(base, given.objective)


def find_bases(name: str) -> tuple[Config, Config]:
    """Return the config that RECIPE names and flow matching's at its cost; a recipe's method is as its family has it.

    Raises UsageError that offers the nearest names, RunError, ValueError.
    """
    if name in OBJECTIVES:
        raise UsageError(f"{name} is a method: name data, e.g. anystep compare digits --methods {name},flow_matching")
    if name in FAMILIES or name in recipe_names() or not Path(name).exists():
        if name not in FAMILIES and "-" not in name and (near := did_you_mean(name, FAMILIES)):
            raise UsageError(f"no family of recipes {name!r}{near}")
        family = name if name in FAMILIES else family_name(find_recipe(name))
        flow = find_base(family)
        return flow, flow
    config = read_config(name)
    return config, with_method(config, "flow_matching")


def print_trials(trials: Sequence[Trial], out: Path) -> None:
    """Print a row per run in ``out`` with what it costs, and what they cost together."""
    passes = [forward_units(trial.config) for trial in trials]
    columns = {
        "run": [trial.run.name for trial in trials],
        "updates": [f"{trial.config.training.steps:,}" for trial in trials],
        "images": [f"{trial.config.training.images:,}" for trial in trials],
        "forward passes": [f"{cost:,}" for cost in passes],
    }
    print_table(columns, numbers=columns.keys() - {"run"})
    print(f"{len(trials)} runs in {out}, {sum(passes):,} forward passes; a dry run trains and writes nothing")


def write_comparison(comparison: Comparison, out: Path, command: str, requested: Path | None) -> None:
    """Write compare.json, table.txt and the figures; print the first metric's table and where the files are."""
    scores, summary, failures = comparison.scores(), comparison.summary(), comparison.failures()
    record = {
        "recipe": comparison.base.recipe,
        "budget": comparison.budget,
        "command": command,
        "scores": scores,
        "summary": summary,
        "failures": failures,
    }
    paths = [out / "compare.json", *([requested] if requested else [])]
    for path in paths:
        write_json(path, record)
    metrics = list(summary[0]["mean"]) or ["frechet"]
    protocol = describe_protocol(comparison, scores)
    tables = [table_text(summary, metric, failures, WIDTH) for metric in metrics]
    paths.append(out / "table.txt")
    write_text(paths[-1], "\n\n\n".join(tables) + f"\n\n{protocol}\n")
    if can_draw() and any(row["mean"].get(metrics[0]) is not None for row in summary):
        paths.append(out / "scores.png")
        write_png(paths[-1], to_image(comparison_figure(summary, scores, metrics[0])))
    if (figure := samples_figure(comparison)) is not None:
        paths.append(out / "samples.png")
        write_png(paths[-1], figure)
    width = get_terminal_size((WIDTH, 0)).columns
    print(f"{table_text(summary, metrics[0], failures, width)}\n\n{protocol}")
    for path in paths:
        print(path)


def describe_protocol(comparison: Comparison, scores: Sequence[Score]) -> str:
    """Return what was measured, and what each run costs."""
    cost = f"{comparison.budget:,} forward passes per run, in whole updates; an image costs forward 1, backward 2"
    if not scores:
        return cost
    scales = {result.trial.guidance for result in comparison.results} - {None}
    guidance = "".join(f", guidance {scale:g} where it is an input" for scale in scales)
    configs = {result.trial.method: result.trial.config for result in comparison.results}
    weights = {method: config.weight.name for method, config in configs.items()}
    couplings = {method: "optimal transport" if each.coupling.batches else "none" for method, each in configs.items()}
    extras = _who("weight", weights) + _who("coupling", couplings)
    protocol = scores[0]["protocol"]
    return f"{summarise(protocol)}, seed {protocol['seed']}{guidance}\n{extras}{cost}"


def _who(what: str, values: Mapping[str, str]) -> str:
    """Return a line per value but "none": the methods that have it, or those that do not if these are fewer."""
    lines = []
    for value in (value for value in dict.fromkeys(values.values()) if value != "none"):
        having = [display_name(method) for method, each in values.items() if each == value]
        others = [display_name(method) for method, each in values.items() if each != value]
        named = f"all but {', '.join(others)}" if len(others) < len(having) else ", ".join(having)
        lines.append(f"{what} {value}: {named if others else 'all'}\n")
    return "".join(lines)


def samples_figure(comparison: Comparison) -> Image.Image | None:
    """Return samples of the same noise of every method, if they are images, or points and matplotlib is installed."""
    runs = [result.trial.run for result in comparison.results if result.scores]
    if not runs:
        return None
    facts = DataFacts.read(runs[0])
    if facts.codec.looks == "picture":
        samples = same_noise(comparison, IMAGES)
        return methods_figure(samples) if samples else None
    samples = same_noise(comparison, POINTS) if facts.shape == (2,) and can_draw() else {}
    if not samples:
        return None
    data = comparison.base.data.open("train")
    points = facts.codec.view(data.read(np.arange(min(len(data), 2 * POINTS)))).numpy()
    ordered = {name: samples[name] for names in by_group(samples).values() for name in names}
    steps = sorted({n for by_steps in samples.values() for n in by_steps}, reverse=True)
    return to_image(scatter(ordered, points, steps=steps, side=1.3), dpi=110)
