"""`anystep report`: pictures, tables and an HTML page of one or more runs."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image

from anystep.cli.files import write_picture
from anystep.cli.parse import Imports, parse
from anystep.cli.scores import print_scores
from anystep.codecs import sampled
from anystep.core.errors import DataError, RunError, UsageError, reason
from anystep.core.registry import import_modules
from anystep.evaluation.reference import conditioned_like_source
from anystep.figures.grids import interpolation_figure, steps_figure
from anystep.flow.condition import rows as some
from anystep.flow.sampling import interpolate_noise
from anystep.model.generator import Generator
from anystep.model.load import load
from anystep.report.page import write_report
from anystep.report.run import ReportImage, read_runs, run_names
from anystep.run.facts import read_config

DESCRIPTION = """Write a page (one HTML file, nothing loaded from elsewhere) of one run, or of several side by side: the
same noise at several budgets, scores of `anystep evaluate`, loss curves, configs, the commands that make it again.

example: anystep report runs/digits-shortcut runs/digits-flow_matching --out runs/report"""

COLUMNS = 16
POINTS = 1000


@dataclass(frozen=True)
class Args:
    """Options of `anystep report`."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]
    """Run directories; files beside them (RUNS/*) are left out."""
    steps: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    """Budgets of the picture."""
    seed: int = 0
    """Seed of the noise, the same for every run."""
    out: Path | None = None
    """Folder to write; default RUN/report of the first run."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    imports: Imports = ()


def run(argv: Sequence[str]) -> int:
    """Draw, write, print where; returns 0."""
    args = parse(Args, argv, "report", DESCRIPTION)
    import_modules(args.imports)
    runs = [path for path in args.runs if not path.is_file()]
    if not runs:
        raise UsageError("report needs a run directory, e.g. anystep report runs/digits")
    if min(args.steps, default=0) < 1:
        raise UsageError(f"--steps must be at least 1, got {min(args.steps, default=0)}")
    if len({path.resolve() for path in runs}) < len(runs):
        raise UsageError(f"each run once, got {' '.join(map(str, runs))}")
    generators = [conditioned_like_source(load(path, device=args.device), read_config(path).data) for path in runs]
    if len(runs) < len(args.runs):
        files = ", ".join(str(path) for path in args.runs if path not in runs)
        print(f"note: left out, files and no run directories: {files}", file=sys.stderr)
    summaries = read_runs(runs)
    out = args.out or runs[0] / "report"
    pictures = draw(dict(zip(run_names(summaries), generators, strict=True)), args.steps, args.seed, runs[0])
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            assert isinstance(picture.image, Image.Image)
            write_picture(out / f"{name}.png", picture.image)
            print(out / f"{name}.png")
        page = write_report(
            out / "report.html",
            title=f"{summaries[0].config['data']['name'].rpartition(':')[2]}: any number of steps",
            runs=summaries,
            images=list(pictures.values()),
        )
    except OSError as error:
        raise RunError(f"cannot write to {out}: {reason(error)}") from error
    except ImportError as error:
        raise RunError(str(error)) from error
    print_scores([row for summary in summaries for row in summary.scores])
    print(page)
    return 0


def draw(generators: dict[str, Generator], steps: Sequence[int], seed: int, run: Path) -> dict[str, ReportImage]:
    """Return the pictures of runs on the data of ``run``: the same noise at each budget, and noises in between."""
    if len({(generator.codec.looks, generator.shape) for generator in generators.values()}) > 1:
        raise UsageError("a report shows runs on the same kind and size of data side by side: give them one at a time")
    one = next(iter(generators.values()))
    if one.codec.looks != "picture":
        if one.shape == (2,):
            return {"steps": planar(generators, steps, seed)}
        return columns(generators, steps, seed, run)
    rows = {name: budgets(generator, steps, seed, COLUMNS) for name, generator in generators.items()}
    same = ReportImage(
        steps_figure(rows), "The same noise in 1 to many steps", f"Every column starts from one noise (seed {seed})."
    )
    first, *_ = generators
    return {"steps": same, "interpolation": interpolation(first, generators[first], seed)}


def budgets(generator: Generator, steps: Sequence[int], seed: int, num: int) -> dict[int, NDArray[np.uint8]]:
    """Return ``num`` samples of the same noise at each budget, uint8 [n, H, W, C]."""
    drawn = {n: generator.generate(steps=n, seed=seed, index=range(num)) for n in steps}
    return {n: generator.decode(x).astype(np.uint8) for n, x in drawn.items()}


def interpolation(name: str, generator: Generator, seed: int) -> ReportImage:
    """Return samples between two noises, variance-preserving (Frans et al. 2024, eq. 6), in 1, 4 and 128 steps."""
    noise = generator.noise(seed, range(2))
    between = interpolate_noise(noise[1], noise[0], COLUMNS)
    condition = some(generator.usual_condition([3]), [0] * COLUMNS)
    label = generator.conditions.class_label(condition)
    one = [0] * COLUMNS  # a stochastic method's fresh noise is the same for all: only the start differs
    rows = {
        n: generator.decode(
            generator.generate(steps=n, noise=between, condition=condition, seed=seed, index=one)
        ).astype(np.uint8)
        for n in (1, 4, 128)
    }
    caption = f"Samples 0 and 1 of seed {seed} at the ends, {name}" + (
        f", class {int(label[0])}." if label is not None else "."
    )
    return ReportImage(interpolation_figure(rows), "Between two noises", caption)


def columns(generators: dict[str, Generator], steps: Sequence[int], seed: int, run: Path) -> dict[str, ReportImage]:
    """Return a figure for each run: columns of its vectors, and pairs of these, against the data of ``run``."""
    from anystep.figures.canvas import to_image
    from anystep.figures.marginals import marginals

    try:
        data = read_config(run).data.open("train")
    except DataError as error:
        print(f"note: the data is not shown: {error}", file=sys.stderr)
        data = None
    figures = {}
    for number, (name, generator) in enumerate(generators.items()):
        real = None
        if data is not None:
            real = generator.codec.view(sampled(data, POINTS)).flatten(1).numpy()
        drawn = {n: generator.generate(steps=n, seed=seed, index=range(POINTS), batch=POINTS) for n in steps}
        image = to_image(marginals({n: generator.decode(x).reshape(POINTS, -1) for n, x in drawn.items()}, real))
        caption = f"{POINTS} vectors of seed {seed}{'' if real is None else ' against the data'}, {name}."
        figures[f"columns_{number}" if len(generators) > 1 else "columns"] = ReportImage(
            image, "Each column in 1 to many steps, and pairs of columns", caption
        )
    return figures


def planar(generators: dict[str, Generator], steps: Sequence[int], seed: int) -> ReportImage:
    """Return scatter plots of two-dimensional samples."""
    from anystep.figures.canvas import to_image
    from anystep.figures.scatter import scatter

    points = {
        name: {
            n: generator.decode(generator.generate(steps=n, seed=seed, index=range(POINTS), batch=POINTS))
            for n in steps
        }
        for name, generator in generators.items()
    }
    caption = f"{POINTS} points of seed {seed}."
    return ReportImage(to_image(scatter(points)), "The same noise in 1 to many steps", caption)
