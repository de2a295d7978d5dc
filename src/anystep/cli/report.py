"""`anystep report`: figures, tables and an HTML page of one or more runs."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from numpy.typing import NDArray
from PIL import Image

from anystep.cli.files import write_png
from anystep.cli.parse import Imports, check_steps, parse, unset
from anystep.cli.tables import print_scores
from anystep.codecs import sampled
from anystep.core.errors import DataError, UsageError
from anystep.evaluation.reference import conditioned_like_source
from anystep.figures.canvas import to_image
from anystep.figures.grids import interpolation_figure, steps_figure
from anystep.figures.marginals import marginals
from anystep.figures.scatter import scatter
from anystep.flow.condition import rows as some
from anystep.flow.sampling import interpolate_noise
from anystep.model.generator import Generator
from anystep.model.load import load
from anystep.report.page import write_report
from anystep.report.run import ReportImage, read_runs, run_names
from anystep.run.facts import read_config

DESCRIPTION = """Write a page (one HTML file that loads nothing) of one run, or of several to compare: the same noise at
several numbers of steps, scores of `anystep evaluate`, loss curves, configs, the commands to repeat the run.

example: anystep report runs/digits
         anystep report runs/digits runs/flow --out runs/report"""

#: images in a row, points or vectors in a plot
COLUMNS, POINTS = 16, 1000
SAME_NOISE = "The same noise in 1 to many steps"


@dataclass(frozen=True)
class ReportOptions:
    """Options of `anystep report`."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, unset("RUN ...")]
    """Run directories; files among them (RUNS/*) are ignored."""
    steps: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...")] = (1, 2, 4, 8, 16, 32, 64, 128)
    """Numbers of sampling steps to show."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Seed of the noise, the same for every run."""
    out: Annotated[Path | None, unset("DIR")] = None
    """Folder to write. Default: RUN/report of the first run."""
    device: Annotated[str, tyro.conf.arg(metavar="NAME")] = "auto"
    """auto, cpu, cuda or mps."""
    imports: Imports = ()


def run(argv: Sequence[str]) -> int:
    """Generate samples, write the page and its figures, print where they are; returns 0."""
    args = parse(ReportOptions, argv, "report", DESCRIPTION)
    runs = [path for path in args.runs if not path.is_file()]
    if not runs:
        raise UsageError("report needs a run directory, e.g. anystep report runs/digits")
    check_steps(args.steps)
    if len({path.resolve() for path in runs}) < len(runs):
        raise UsageError(f"each run must be given once, got {' '.join(map(str, runs))}")
    generators = [conditioned_like_source(load(path, device=args.device), read_config(path).data) for path in runs]
    if len({(generator.codec.looks, generator.shape) for generator in generators}) > 1:
        raise UsageError("runs in one report must be on the same kind and size of data: report them one at a time")
    if len(runs) < len(args.runs):
        files = ", ".join(str(path) for path in args.runs if path not in runs)
        print(f"note: ignored, files and no run directories: {files}", file=sys.stderr)
    summaries = read_runs(runs)
    named = dict(zip(run_names(summaries), generators, strict=True))
    out = args.out or runs[0] / "report"
    if generators[0].codec.looks == "picture":
        pictures = image_figures(named, args.steps, args.seed)
    else:
        pictures = vector_figures(named, args.steps, args.seed, runs[0])
    shown = []
    for name, figure in pictures.items():
        assert isinstance(figure.image, Image.Image)
        write_png(out / f"{name}.png", figure.image)
        shown.append(replace(figure, image=out / f"{name}.png"))
        print(out / f"{name}.png")
    title = f"{summaries[0].config['data']['name'].rpartition(':')[2]}: any number of steps"
    page = write_report(out / "report.html", title=title, runs=summaries, images=shown)
    print_scores([row for summary in summaries for row in summary.scores])
    print(page)
    return 0


def generate(generator: Generator, steps: Sequence[int], seed: int, num: int) -> dict[int, NDArray[Any]]:
    """Return ``num`` decoded samples of the same noise for each number of steps."""
    return {n: generator.decode(generator.generate(steps=n, num=num, seed=seed)) for n in steps}


def image_figures(generators: Mapping[str, Generator], steps: Sequence[int], seed: int) -> dict[str, ReportImage]:
    """Return samples of the same noise of every run, and samples of the first between two noises (Frans et al. 2024,
    eq. 6) in 1, 4 and 128 steps.
    """
    samples = {name: generate(generator, steps, seed, COLUMNS) for name, generator in generators.items()}
    caption = f"Every column starts from one noise (seed {seed})."
    name, generator = next(iter(generators.items()))
    noise = generator.noise(seed, range(2))
    path, first = interpolate_noise(noise[1], noise[0], COLUMNS), [0] * COLUMNS
    condition = some(generator.usual_condition([3]), first)
    between = {
        n: generator.decode(
            generator.generate(steps=n, noise=path, condition=condition, seed=seed, index=first)  # re-noised alike
        )
        for n in (1, 4, 128)
    }
    label = generator.conditions.class_label(condition)
    of_class = "" if label is None else f", class {int(label[0])}"
    return {
        "steps": ReportImage(steps_figure(samples), SAME_NOISE, caption),
        "interpolation": ReportImage(
            interpolation_figure(between),
            "Between two noises",
            f"Samples 0 and 1 of seed {seed} at the ends, {name}{of_class}.",
        ),
    }


def vector_figures(
    generators: Mapping[str, Generator], steps: Sequence[int], seed: int, run: Path
) -> dict[str, ReportImage]:
    """Return a scatter plot of points of the plane. Of other vectors: a figure per run of their columns and pairs of
    columns, with the data of ``run``.
    """
    samples = {name: generate(generator, steps, seed, POINTS) for name, generator in generators.items()}
    first = next(iter(generators.values()))
    if first.shape == (2,):
        return {"steps": ReportImage(to_image(scatter(samples)), SAME_NOISE, f"{POINTS} points of seed {seed}.")}
    real, against = None, ""
    try:
        rows = sampled(read_config(run).data.open("train"), POINTS)
        real, against = first.codec.view(rows).flatten(1).numpy(), " against the data"
    except DataError as error:
        print(f"note: the data is not shown: {error}", file=sys.stderr)
    figures = {}
    for number, (name, by_steps) in enumerate(samples.items()):
        flat = {n: values.reshape(POINTS, -1) for n, values in by_steps.items()}
        figures[f"columns_{number}" if len(samples) > 1 else "columns"] = ReportImage(
            to_image(marginals(flat, real)),
            "Each column in 1 to many steps, and pairs of columns",
            f"{POINTS} vectors of seed {seed}{against}, {name}.",
        )
    return figures
