"""`anystep sample`: generate samples of a run in any number of steps."""

import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal
from zipfile import BadZipFile

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor

from anystep.cli.files import write_png
from anystep.cli.parse import RunOptions, check_steps, parse, read_weights, unset
from anystep.core.errors import UsageError, reason
from anystep.core.fields import require
from anystep.core.files import write_bytes
from anystep.figures.canvas import can_draw, to_image
from anystep.figures.grids import grid, guidance_figure, steps_figure
from anystep.figures.marginals import COLUMNS, marginals
from anystep.figures.scatter import scatter
from anystep.flow.condition import Condition, ConditionSpec
from anystep.flow.condition import rows as some
from anystep.flow.ladder import Order
from anystep.flow.sampling import interpolate_noise
from anystep.model.generator import Generator
from anystep.model.load import load

#: decoded samples by guidance scale W (None: as trained) and number of steps
Samples = dict[float | None, dict[int, NDArray[Any]]]

DESCRIPTION = """Generate samples. Sample i is determined by (seed, i): more steps give the same image, sharper; with
consistency models, which re-noise between steps, they give another one.

example: anystep sample runs/digits --steps 1 4 128 --num 64
         anystep sample runs/digits --steps 128 --refine 3 17    (two, sharper)
         anystep sample runs/digits --steps 1 4 --guidance 1 1.5 2.5
         anystep sample runs/digits --steps 1 --interpolate 9"""


@dataclass(frozen=True)
class SampleOptions(RunOptions):
    """Options of `anystep sample`."""

    label: Annotated[int | None, unset("CLASS")] = None
    """One class, by number, for all samples. Default: the classes take turns."""
    condition: Annotated[Path | None, unset("FILE")] = None
    """Features to condition on (.npz): a row per sample, arrays named as the data's conditions."""
    refine: Annotated[list[int] | None, unset("I ...")] = None
    """Generate these samples only, by number from 0: the same noise again, in more steps."""
    interpolate: Annotated[int | None, unset("N")] = None
    """Generate N points between pairs of noises (Frans et al. 2024, eq. 6), a pair per row."""
    order: Annotated[Order | None, unset("NAME")] = None
    """small_last or small_first, if the number of steps is no power of two. Default: as the run."""
    weights: Annotated[str, tyro.conf.arg(metavar="NAME")] = "ema"
    """ema (for evaluation), raw (as trained), or the width of a power EMA such as 0.1 (--ema.profiles)."""
    out: Annotated[Path | None, unset("DIR")] = None
    """Folder to write. Default: RUN/samples."""
    format: Annotated[Literal["png", "npz"] | None, unset("png|npz")] = None
    """png: images or plots; npz: arrays. Default: png, for vectors that are hard to plot npz."""


def run(argv: Sequence[str]) -> int:
    """Generate and write samples; returns 0."""
    args = parse(SampleOptions, argv, "sample", DESCRIPTION)
    generator = open_generator(args)
    features = {} if args.condition is None else read_features(args.condition, generator.conditions)
    num = args.num or max(map(len, features.values()), default=64)
    index = args.refine or list(range(num))
    noise, condition = generator.noise(args.seed, index), condition_of(generator, features, args.label, index)
    if args.interpolate is not None:
        noise, condition, index = between(noise, condition, index, args.interpolate)
    scales: Sequence[float | None] = args.guidance or [None]
    plans = {
        scale: {n: generator.plan(n, guidance=scale, twice=args.guide_twice) for n in args.steps} for scale in scales
    }
    warnings = [generator.caution, *(plan.caution for by_steps in plans.values() for plan in by_steps.values())]
    for warning in filter(None, dict.fromkeys(warnings)):
        print(f"note: {warning}", file=sys.stderr)
    samples: Samples = {
        scale: {
            n: generator.decode(
                generator.generate(steps=plan, noise=noise, condition=condition, seed=args.seed, index=index)
            )
            for n, plan in by_steps.items()
        }
        for scale, by_steps in plans.items()
    }
    out = args.out or args.run / "samples"
    out.mkdir(parents=True, exist_ok=True)
    images = generator.codec.looks == "picture"
    if (args.format or ("png" if images else vector_format(samples))) == "png":
        write_figures(out, samples, args.interpolate, images)
    else:
        write_arrays(out, samples, generator.conditions.class_label(condition))
    return 0


def open_generator(args: SampleOptions) -> Generator:
    """Return the run's generator with the weights and the order of the options. Raises UsageError for bad options."""
    check_steps(args.steps)
    if args.guidance == []:
        raise UsageError("--guidance needs at least one scale, e.g. --guidance 1 1.5 2.5")
    require(args.num is None or args.num >= 1, "--num", args.num, "at least 1")
    require(args.interpolate is None or args.interpolate >= 2, "--interpolate", args.interpolate, "at least 2")
    if args.refine is not None:
        require(min(args.refine, default=-1) >= 0, "--refine", args.refine, "numbers of samples, from 0")
    generator = load(args.run, weights=read_weights(args.weights), device=args.device, step=args.checkpoint)
    if args.order is None:
        return generator
    objective: Any = generator.objective
    if not hasattr(objective, "order"):
        raise UsageError(f"--order is for methods that condition on the step size; {objective.name} does not")
    return replace(generator, objective=replace(objective, order=args.order))


def read_features(path: Path, conditions: ConditionSpec) -> dict[str, Tensor]:
    """Return the features in a file by name. Raises UsageError for a missing one, and for other files."""
    if not conditions.features:
        label = "" if conditions.num_classes is None else "; a class is --label"
        raise UsageError(f"--condition contains features, and this model is not conditioned on any: omit it{label}")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: torch.from_numpy(np.atleast_1d(file[name])) for name in file.files}
    except (OSError, ValueError, TypeError, AttributeError, BadZipFile) as error:
        raise UsageError(f"cannot read --condition {path}, an .npz file of numbers: {reason(error)}") from error
    if conditions.single and len(arrays) == 1:
        return dict(zip(conditions.features, arrays.values(), strict=True))
    if missing := [name for name in conditions.features if name not in arrays]:
        found = ", ".join(arrays)
        raise UsageError(f"{path} has no array {missing[0]}, which this model is conditioned on; it has {found}")
    return {name: arrays[name] for name in conditions.features}


def condition_of(
    generator: Generator, features: Mapping[str, Tensor], label: int | None, index: Sequence[int]
) -> Condition:
    """Return the condition of the samples with these numbers; row i of the features is that of sample i."""
    spec = generator.conditions
    if label is not None and spec.label is None:
        what = "conditioned on features alone" if spec else "unconditional"
        raise UsageError(f"--label {label} needs classes, and this model is {what}: omit it")
    for name, values in features.items():
        if len(values) <= max(index):
            raise UsageError(f"--condition has no row for sample {max(index)}: {name} has {len(values)} rows")
    if features:
        named = {name: values[list(index)] for name, values in features.items()}
        if spec.label is not None:
            named[spec.label] = torch.tensor(index) % (spec.num_classes or 1)
    else:
        named = spec.named(generator.usual_condition(index))
    if spec.label is not None and label is not None:
        named[spec.label] = torch.full((len(index),), label)
    return spec.of(named)


def between(
    noise: Tensor, condition: Condition, index: Sequence[int], points: int
) -> tuple[Tensor, Condition, list[int]]:
    """Return rows of ``points`` noises between samples 0 and 1, 2 and 3, ..., with their conditions and numbers.

    A row has its first sample's condition and number, so that a method that re-noises uses the same noise along it.
    """
    pairs = max(1, len(noise) // points)
    if 2 * pairs > len(noise):
        raise UsageError(f"--interpolate needs two samples, got {len(noise)}: raise --num")
    rows = [interpolate_noise(noise[2 * n + 1], noise[2 * n], points) for n in range(pairs)]
    first = [2 * n for n in range(pairs) for _ in range(points)]
    return torch.cat(rows), some(condition, first), [index[n] for n in first]


def by_name(samples: Samples) -> dict[str, NDArray[Any]]:
    """Return the samples by the name of their file: samples_<steps>, with _w<W> for several scales W."""
    return {
        f"samples_{n}" + (f"_w{scale:g}" if len(samples) > 1 else ""): values
        for scale, by_steps in samples.items()
        for n, values in by_steps.items()
    }


def vector_format(samples: Samples) -> Literal["png", "npz"]:
    """Return the format of vectors without --format: plots that show all columns, else arrays, with a note."""
    columns = next(iter(next(iter(samples.values())).values()))[0].size
    if can_draw() and columns <= COLUMNS:
        return "png"
    why = "without matplotlib" if columns <= COLUMNS else f"of {columns} columns"
    print(f"note: vectors {why} are written as arrays; --format png plots them", file=sys.stderr)
    return "npz"


def write_arrays(out: Path, samples: Samples, label: Tensor | None) -> None:
    """Write samples_STEPS.npz per guidance scale: samples, uint8 [n, H, W, C] or float32 [n, D], and labels."""
    labels: dict[str, Any] = {} if label is None else {"labels": label.numpy()}
    for name, values in by_name(samples).items():
        content = io.BytesIO()
        np.savez(content, samples=values, **labels)
        write_bytes(out / f"{name}.npz", content.getvalue())
        print(out / f"{name}.npz")


def write_figures(out: Path, samples: Samples, columns: int | None, images: bool) -> None:
    """Write and print the figures of samples.

    Images: one figure per number of steps and guidance scale, then guidance.png or steps.png with all of them. Points
    of the plane: samples.png, a row per scale. Other vectors: histograms of their columns, a file per scale.
    """
    first, several = next(iter(samples.values())), len(samples) > 1
    figures: dict[str, Any] = {}
    if images:
        for name, values in by_name(samples).items():
            across = columns or min(len(values), max(1, round(len(values) ** 0.5)))
            figures[name] = grid(values, across)
        if several:
            few = {
                scale or 0.0: {n: values[: columns or 8] for n, values in by_steps.items()}
                for scale, by_steps in samples.items()
            }
            figures["guidance"] = guidance_figure(few)
        elif len(first) > 1:
            figures["steps"] = steps_figure({"samples": {n: values[: columns or 16] for n, values in first.items()}})
    elif next(iter(first.values())).shape[1:] == (2,):
        rows = {f"W = {scale:g}": by_steps for scale, by_steps in samples.items()} if several else {"samples": first}
        figures["samples"] = to_image(scatter(rows))
    else:
        for scale, by_steps in samples.items():
            flat = {n: values.reshape(len(values), -1) for n, values in by_steps.items()}
            figures[f"samples_w{scale:g}" if several else "samples"] = to_image(marginals(flat))
    for name, figure in figures.items():
        write_png(out / f"{name}.png", figure)
        print(out / f"{name}.png")
