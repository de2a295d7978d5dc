"""`anystep compare`: every method on one's own data at equal compute."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from anystep.cli.files import check_writable, write_json, write_picture
from anystep.cli.parse import Imports, parse_known, parse_with_sections, split
from anystep.cli.progress import ComparisonProgress
from anystep.cli.scores import METRICS_HELP
from anystep.cli.sections import configured, find_data, sections_of, with_classes
from anystep.comparison.compare import STEPS, Choices, compare, plan_checked, with_earlier
from anystep.comparison.outcome import Comparison, same_noise
from anystep.comparison.trials import Score, Trial
from anystep.core.errors import RunError, UsageError, reason
from anystep.core.files import write_text
from anystep.core.registry import import_modules
from anystep.figures.canvas import MISSING, can_draw, to_image
from anystep.figures.grids import methods_figure
from anystep.figures.methods import by_group
from anystep.figures.scatter import scatter
from anystep.objectives import OBJECTIVES
from anystep.recipes import FAMILIES, family_name, find_recipe, recipe_names, with_method
from anystep.report.comparison import comparison_figure
from anystep.report.table1 import table_text
from anystep.run.config import Config
from anystep.run.facts import DataFacts, read_config
from anystep.run.plan import forward_units
from anystep.training.signals import stop_on_signal

DESCRIPTION = """Train every method at equal compute, score each in several numbers of steps, write a table.

In OUT: table.txt, compare.json, scores.png and samples.png, beside the runs METHOD-seedK.

What is trained or scored already is not repeated; Ctrl-C saves checkpoints, and the same command resumes.

Sections (--network.hidden, --optimizer.lr, ...) are the same for every method, network inputs excepted.

example: anystep compare digits
         anystep compare two_moons --methods shortcut,flow_matching --steps 1 4 128 --seeds 0 1 --jobs 2
         anystep compare digits --methods shortcut,+guidance,+interval,+wavelet,+ot,+twin_ema --guidance 1.5"""

#: the recipe whose options `anystep compare --help` shows
EXAMPLE = "digits"
#: sections of a config that every method shares, in the order that --help shows
SECTIONS = tuple(f.name for f in fields(Config) if f.name not in ("recipe", "objective", "init"))
#: fields of the network that each method decides
DECIDED = ("step_encoding", "guidance_input", "prediction")
#: images, or points, of the picture of samples
IMAGES, POINTS = 4, 1000
#: characters of the table
WIDTH = 100
#: why a later table does not show them
LOST = "are not in the new one: runs gone or changed, or other --num, --metrics or --guidance"
WRITTEN = ("compare.json", "table.txt", "scores.png", "samples.png")


@dataclass(frozen=True)
class CompareOptions:
    """The options of `anystep compare` that have no section."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")] = ""
    """A family (digits), a recipe of one, or a config.json or run directory, whose method has its own options."""
    methods: tuple[str, ...] | None = None
    """Methods to compare, by spaces or commas; default all. Parts of iSM too, +guidance and so on (anystep recipes)."""
    without: tuple[str, ...] = ()
    """Methods to leave out, by spaces or commas."""
    steps: tuple[int, ...] = STEPS
    """Sampling budgets, any integers of at least 1."""
    num: int = 2048
    """Number of samples at each budget. A Frechet distance depends on it: compare at equal numbers only."""
    guidance: float | None = None
    """Guidance scale W of methods whose network is told it (improved_shortcut and its parts); default 1, none."""
    metrics: Annotated[tuple[str, ...] | None, tyro.conf.arg(help=METRICS_HELP)] = None
    seeds: tuple[int, ...] = (0,)
    """Seeds of the training runs; two or more give mean and spread."""
    images: int | None = None
    """Compute of every run, in images that flow matching would be trained on: short for --training.images."""
    batch: int | None = None
    """Images in a batch: short for --training.batch."""
    jobs: int = 1
    """Runs at a time, in processes that share the cores."""
    out: Path | None = None
    """Folder to write; default runs/compare-FAMILY."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the runs and what each would cost. Trains and writes nothing."""
    codec: str | None = None
    """Class of the section `codec`, by name; default the recipe's."""
    penalty: str | None = None
    """Class of the section `penalty`, by name; default the recipe's."""
    weight: str | None = None
    """Class of the section `weight`, by name; default the recipe's."""
    device: str | None = None
    """auto, cpu, cuda, mps: short for --training.device."""
    imports: Imports = ()
    json: Path | None = None
    """Write what compare.json holds to this file too."""


def run(argv: Sequence[str]) -> int:
    """Compare, print the table, write the files; returns 0, 1 when a run failed, 128 + n when signal n stopped it."""
    args, base = parse_compare(argv)
    if args.jobs < 1:
        raise UsageError(f"--jobs must be at least 1, got {args.jobs}")
    choices = Choices(
        split(args.methods),
        split(args.without) or (),
        args.seeds,
        args.steps,
        args.num,
        split(args.metrics),
        args.guidance,
    )
    base = find_data(base)
    out = args.out or Path("runs") / f"compare-{Path(family_name(base)).name}"
    if (out / "config.json").exists():
        raise UsageError(f"{out} is a run directory: runs of the comparison need a folder of their own, another --out")
    if args.dry_run:
        print_runs(plan_checked(base, out, choices), out)
        return 0
    for name in WRITTEN:
        check_writable(out / name)
    if args.json is not None:
        check_writable(args.json)
    if not can_draw():
        print(f"{MISSING}; scores are not drawn", file=sys.stderr)
    with ComparisonProgress() as progress, stop_on_signal(progress.stopping) as stop:
        comparison = compare(
            base,
            out,
            choices,
            jobs=args.jobs,
            imports=args.imports,
            watch=progress.show,
            stop=stop,
        )
    command = shlex.join(["anystep", "compare", *argv])
    if stop.signal is not None and not comparison.complete:
        done = sum(bool(result.scores) for result in comparison.results)
        print(f"stopped; {done} of {len(comparison.results)} runs are done, and checkpoints saved", file=sys.stderr)
        print(f"go on with: {command}", file=sys.stderr)
        return 128 + stop.signal
    comparison, lost = with_earlier(comparison, out, choices)
    if lost:
        print(f"{lost} scores of the {out / 'compare.json'} before {LOST}", file=sys.stderr)
    try:
        write(comparison, out, command, args.json)
    except OSError as error:
        raise RunError(f"cannot write to {out}: {reason(error)}") from error
    return 1 if comparison.failures() else 0


def parse_compare(argv: Sequence[str]) -> tuple[CompareOptions, Config]:
    """Return the options, and the run that sets data, sizes and compute; its own method has its own options.

    Sections apply to flow matching's run at the same cost, so that --images counts its images whatever RECIPE is.
    `--import`ed modules are imported. Raises UsageError.
    """
    args = parse_known(CompareOptions, argv, "compare")
    import_modules(args.imports)
    named = list(argv[:1]) == [args.recipe]  # the recipe stands first; without one, --help shows an example's options
    recipe, flow = find(args.recipe if named else EXAMPLE)
    base = with_classes(flow, args)
    sections = parse_with_sections(CompareOptions, sections_of(base, SECTIONS), argv, "compare", DESCRIPTION)
    if not named:
        raise UsageError(f"compare begins with a recipe, e.g. anystep compare {EXAMPLE}; anystep recipes lists them")
    for name in DECIDED:
        if getattr(sections["network"], name, None) != getattr(flow.network, name, None):
            raise UsageError(f"--network.{name.replace('_', '-')} is decided by each method: leave it out")
    if sections["training"].seed != flow.training.seed:
        raise UsageError("--training.seed is one for all: give --seeds")
    base = configured(base, sections, args)
    return args, base if recipe is flow else with_method(base, recipe.objective)


def find(name: str) -> tuple[Config, Config]:
    """Return the config that RECIPE names and flow matching's at its cost; a recipe's method is as its family has it.

    Raises UsageError that offers the nearest names, RunError, ValueError.
    """
    if name in FAMILIES or name in recipe_names():
        family = name if name in FAMILIES else family_name(find_recipe(name))
        flow = find_recipe(f"{family}-flow_matching")
        return flow, flow
    path = Path(name)
    if path.exists():
        config = read_config(path)
        return config, with_method(config, "flow_matching")
    if name in OBJECTIVES:
        raise UsageError(f"{name} is a method: name data, e.g. anystep compare digits --methods {name},flow_matching")
    if path.suffix == ".json" or len(path.parts) > 1:
        raise UsageError(f"{name}: no such file")
    near = get_close_matches(name, FAMILIES, n=2) or get_close_matches(name, recipe_names(), n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else "anystep recipes lists them"
    raise UsageError(f"no recipe {name!r}; {hint}")


def print_runs(trials: Sequence[Trial], out: Path) -> None:
    """Print a line per run in ``out`` with what it costs, and what they cost together."""
    table = Table("run", "updates", "images", "forward units", box=box.SIMPLE_HEAD, pad_edge=False)
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "right"
    for trial in trials:
        training, units = trial.config.training, forward_units(trial.config)
        table.add_row(trial.run.name, f"{training.steps:,}", f"{training.images:,}", f"{units:,}")
    Console().print(table)
    total = sum(forward_units(trial.config) for trial in trials)
    print(f"{len(trials)} runs in {out}, {total:,} network forward units; a dry run trains and writes nothing")


def write(comparison: Comparison, out: Path, command: str, requested: Path | None) -> None:
    """Write compare.json, table.txt and the pictures; print the first metric's table and where the files are."""
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
    protocol = protocol_line(comparison, scores)
    tables = [table_text(summary, metric, failures, WIDTH) for metric in metrics]
    paths.append(out / "table.txt")
    write_text(paths[-1], "\n\n\n".join(tables) + f"\n\n{protocol}\n")
    for name, image in pictures(comparison, summary, scores, metrics[0]).items():
        paths.append(out / name)
        write_picture(paths[-1], image)
    console = Console()
    shown = table_text(summary, metrics[0], failures, console.width if console.is_terminal else WIDTH)
    text = Text(f"{shown}\n\n{protocol}")
    text.highlight_regex(r"\S+( ±\S+)?\*", "bold")
    console.print(text, soft_wrap=True)
    for path in paths:
        print(path)


def protocol_line(comparison: Comparison, scores: Sequence[Score]) -> str:
    """Return what was measured, and what each run costs."""
    budget = (
        f"{comparison.budget:,} network forward units a run, in whole updates; an image costs forward 1, backward 2"
    )
    if not scores:
        return budget
    protocol = scores[0]["protocol"]
    scales = {result.trial.guidance for result in comparison.results} - {None}
    told = "".join(f", guidance {scale:g} where it is an input" for scale in scales)
    return (
        f"{protocol['num']:,} samples against {protocol['reference_num']:,} of {protocol['reference']}, "
        f"{protocol['features'].replace('_', ' ')}, seed {protocol['seed']}{told}\n{budget}"
    )


def pictures(comparison: Comparison, summary: Sequence[Score], scores: Sequence[Score], metric: str) -> dict[str, Any]:
    """Return scores.png and samples.png as far as there is something to draw, and something to draw it with."""
    made: dict[str, Any] = {}
    if can_draw() and any(row["mean"].get(metric) is not None for row in summary):
        made["scores.png"] = to_image(comparison_figure(summary, scores, metric))
    runs = [result.trial.run for result in comparison.results if result.scores]
    if not runs:
        return made
    facts = DataFacts.read(runs[0])
    if facts.codec.looks == "picture" and (drawn := same_noise(comparison, IMAGES)):
        made["samples.png"] = methods_figure(drawn)
    planar = facts.codec.looks == "vector" and facts.shape == (2,)
    if planar and can_draw() and (drawn := same_noise(comparison, POINTS)):
        data = comparison.base.data.open("train")
        points = facts.codec.view(data.read(np.arange(min(len(data), 2 * POINTS)))).numpy()
        ordered = {name: drawn[name] for names in by_group(drawn).values() for name in names}
        budgets = sorted({row["steps"] for row in summary}, reverse=True)
        made["samples.png"] = to_image(scatter(ordered, points, steps=budgets, side=1.3), dpi=110)
    return made
