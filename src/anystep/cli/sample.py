"""`anystep sample`: draw from a run, in any number of steps."""

import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal
from zipfile import BadZipFile

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from PIL import Image

from anystep.cli.files import write_picture
from anystep.cli.parse import Imports, parse
from anystep.cli.weights import read_one
from anystep.core.errors import RunError, UsageError, reason
from anystep.core.files import write_bytes
from anystep.core.registry import import_modules
from anystep.figures.canvas import to_image
from anystep.figures.grids import grid, guidance_figure, steps_figure
from anystep.flow.condition import Condition, ConditionSpec
from anystep.flow.condition import rows as some
from anystep.flow.ladder import Order
from anystep.flow.sampling import interpolate_noise
from anystep.model.generator import Generator
from anystep.model.load import load

#: samples by guidance scale W (None: as trained) and number of steps
Drawn = dict[float | None, dict[int, NDArray[np.generic]]]

DESCRIPTION = """Draw samples. Sample i is decided by (seed, i): more steps make the same picture, sharper; with
consistency models, which add fresh noise between steps, they make another one.

example: anystep sample runs/digits --steps 1 4 128 --num 64
         anystep sample runs/digits --steps 1 4 --guidance 1 1.5 2.5      every scale, the same noise
         anystep sample runs/digits --steps 128 --refine 3 17     two of them again, sharper
         anystep sample runs/digits --steps 1 --interpolate 9     between pairs of noises"""


@dataclass(frozen=True)
class Args:
    """Options of `anystep sample`."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory."""
    steps: list[int]
    """Sampling budgets, any integers of at least 1."""
    num: int | None = None
    """Number of samples; default 64, or as many as there are rows in --condition."""
    label: int | None = None
    """One class for all samples; without it classes take turns."""
    condition: Annotated[Path | None, tyro.conf.arg(metavar="FILE.npz")] = None
    """Features that samples are given, one row for each, in the data's unit: arrays [n, ...] with the names of the
    data's conditions (a lone one: feature, or the only array). Without it features are left out."""
    guidance: list[float] | None = None
    """Guidance scale W, 1 for none; several: each of them, the same noise. Without it as trained: what training built
    in is not applied twice."""
    guide_twice: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Allow guidance of steps that have it from training, or that were not trained for it."""
    seed: int = 0
    """Seed of the noise."""
    refine: list[int] | None = None
    """Draw these samples only, by number from 0: the same noise again, with more steps."""
    interpolate: int | None = None
    """Draw this many points between pairs of noises (Frans et al. 2024, eq. 6): one pair a row, --num / points rows."""
    order: Order | None = None
    """Where a budget that is no power of two has its small steps; default as the run's objective."""
    weights: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ema|raw|WIDTH")] = ("ema",)
    """One only. ema: the average kept for evaluation; raw: the trained parameters; a number such as 0.1: the power
    average of this relative width, of a run that was trained with --ema.profiles."""
    checkpoint: int | None = None
    """Step of the checkpoint to use, one that checkpoint.keep_every kept; without it the newest."""
    out: Path | None = None
    """Folder to write; default RUN/samples."""
    format: Literal["png", "npz"] = "png"
    """png: pictures; npz: samples_<steps>.npz with samples (uint8 [n, H, W, C] or float32 [n, D]) and labels, or
    samples_<steps>_w<W>.npz for several guidance scales W."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    imports: Imports = ()


def run(argv: Sequence[str]) -> int:
    """Draw and write; returns 0."""
    args = parse(Args, argv, "sample", DESCRIPTION)
    import_modules(args.imports)
    check(args)
    weights = read_one(args.weights)
    generator = load(args.run, weights=weights, device=args.device, step=args.checkpoint)
    if args.order is not None:
        generator = ordered(generator, args.order)
    features = {} if args.condition is None else read_features(args.condition, generator.conditions, args.num)
    num = args.num or next((len(values) for values in features.values()), 64)
    index = list(range(num)) if args.refine is None else args.refine
    noise = generator.noise(args.seed, index)
    condition = given(generator, features, args.label, index)
    if args.interpolate is not None:
        noise, condition, index = between(noise, condition, index, args.interpolate)
    scales: Sequence[float | None] = args.guidance or [None]
    plans = {
        scale: {n: generator.plan(n, guidance=scale, twice=args.guide_twice) for n in args.steps} for scale in scales
    }
    cautions = [generator.caution, *(plan.caution for by in plans.values() for plan in by.values())]
    for caution in filter(None, dict.fromkeys(cautions)):
        print(f"note: {caution}", file=sys.stderr)
    drawn = {
        scale: {
            n: generator.decode(
                generator.generate(steps=plan, noise=noise, condition=condition, seed=args.seed, index=index)
            )
            for n, plan in by.items()
        }
        for scale, by in plans.items()
    }
    out = args.out or args.run / "samples"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if args.format == "npz":
            label = generator.conditions.class_label(condition)
            paths = write_arrays(out, drawn, None if label is None else label.numpy())
        else:
            looks = generator.codec.looks
            paths = write_grids(out, drawn, args.interpolate) if looks == "picture" else write_plots(out, drawn)
        for path in paths:
            print(path)
    except OSError as error:
        raise RunError(f"cannot write to {out}: {reason(error)}") from error
    return 0


def check(args: Args) -> None:
    """Raise UsageError for values that cannot be meant."""
    if not args.steps:
        raise UsageError("--steps needs at least one budget, e.g. --steps 1 4 128")
    for n in args.steps:
        if n < 1:
            raise UsageError(f"--steps must be at least 1, got {n}")
    if args.guidance is not None and not args.guidance:
        raise UsageError("--guidance needs at least one scale, e.g. --guidance 1 1.5 2.5")
    if args.num is not None and args.num < 1:
        raise UsageError(f"--num must be at least 1, got {args.num}")
    if args.refine is not None and (not args.refine or min(args.refine) < 0):
        raise UsageError(f"--refine must name samples from 0 on, got {args.refine}")
    if args.interpolate is not None and args.interpolate < 2:
        raise UsageError(f"--interpolate must be at least 2 points, got {args.interpolate}")


def read_features(path: Path, conditions: ConditionSpec, num: int | None) -> dict[str, NDArray[Any]]:
    """Return the features in a file by name. Raises UsageError for missing ones, and other numbers of rows."""
    if not conditions.features:
        raise UsageError("--condition gives features, and this model is conditioned on none: leave it out")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, BadZipFile) as error:
        raise UsageError(f"cannot read --condition {path}: {reason(error)}; an .npz file is expected") from error
    if conditions.single and len(arrays) == 1:
        arrays = dict(zip(conditions.features, arrays.values(), strict=True))
    for name in conditions.features:
        if name not in arrays:
            raise UsageError(
                f"{path} has no array {name}, which this model is conditioned on; it holds {', '.join(arrays)}"
            )
        if arrays[name].dtype.kind not in "biuf" or arrays[name].ndim == 0:
            raise UsageError(f"{path}, {name}: expected numbers, one row for each sample, got {arrays[name].dtype}")
    counts = {name: len(arrays[name]) for name in conditions.features} | ({} if num is None else {"--num": num})
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UsageError(f"{path}: features need one row for each sample, got {found}")
    return {name: arrays[name] for name in conditions.features}


def given(
    generator: Generator, features: Mapping[str, NDArray[Any]], label: int | None, index: Sequence[int]
) -> Condition:
    """Return the condition of the samples of these numbers: row i of the features is that of sample i."""
    if label is None and not features:
        return generator.usual_condition(index)
    spec = generator.conditions
    if label is not None and spec.label is None:
        what = "conditioned on features alone" if spec else "unconditional"
        raise UsageError(f"--label {label} needs classes, and this model is {what}: leave it out")
    if features and max(index) >= len(next(iter(features.values()))):
        raise UsageError(
            f"--refine {max(index)} has no row in --condition, which has {len(next(iter(features.values())))}"
        )
    named = {name: torch.from_numpy(values[list(index)]) for name, values in features.items()}
    others = {name: spec.entries[name] for name in spec.entries if name not in named}
    usual = ConditionSpec(others, single=False)
    named |= usual.named(replace(generator, conditions=usual).usual_condition(index))
    if label is not None and spec.label is not None:
        named[spec.label] = torch.full((len(index),), label)
    return spec.of(named)


def ordered(generator: Generator, order: Order) -> Generator:
    """Return the generator with its small steps elsewhere. Raises UsageError for a method that has no order."""
    objective: Any = generator.objective
    if "order" not in {field.name for field in fields(objective)}:
        raise UsageError(f"--order is for models that are told the step; {objective.name} takes equal steps")
    return replace(generator, objective=replace(objective, order=order))


def between(
    noise: torch.Tensor, condition: Condition, index: Sequence[int], points: int
) -> tuple[torch.Tensor, Condition, list[int]]:
    """Return rows of ``points`` noises between samples 0 and 1, 2 and 3, ..., with their conditions and numbers.

    A whole row has its first sample's condition and number: fresh noise of a stochastic method is the same along it.
    """
    pairs = max(1, len(noise) // points)
    if 2 * pairs > len(noise):
        raise UsageError(f"--interpolate needs two samples, got {len(noise)}: raise --num")
    rows = [interpolate_noise(noise[2 * n + 1], noise[2 * n], points) for n in range(pairs)]
    first = [2 * n for n in range(pairs) for _ in range(points)]
    return torch.cat(rows), some(condition, first), [index[n] for n in first]


def names(drawn: Drawn) -> dict[str, NDArray[np.generic]]:
    """Return what was drawn by the name of its file: samples_<steps>, with _w<W> where there are several scales W."""
    several = len(drawn) > 1
    return {
        f"samples_{n}" + (f"_w{scale:g}" if several else ""): samples
        for scale, by in drawn.items()
        for n, samples in by.items()
    }


def write_arrays(out: Path, drawn: Drawn, label: NDArray[np.int64] | None) -> list[Path]:
    """Write one .npz a budget and guidance scale; returns their paths."""
    paths = []
    for name, samples in names(drawn).items():
        paths.append(out / f"{name}.npz")
        arrays: dict[str, Any] = {"samples": samples} | ({} if label is None else {"labels": label})
        content = io.BytesIO()
        np.savez(content, **arrays)
        write_bytes(paths[-1], content.getvalue())
    return paths


def write_plots(out: Path, drawn: Drawn) -> list[Path]:
    """Write samples.png: points of the plane, a row a guidance scale and a column a budget.

    Of other vectors: histograms of their columns and pairs of these, a file for each guidance scale.
    """
    first, *others = drawn.values()
    if next(iter(first.values())).shape[1:] == (2,):
        from anystep.figures.scatter import scatter

        rows = {f"W = {scale:g}": by for scale, by in drawn.items()} if others else {"samples": first}
        write_picture(out / "samples.png", to_image(scatter(rows)))
        return [out / "samples.png"]
    from anystep.figures.marginals import marginals

    paths = []
    for scale, by in drawn.items():
        paths.append(out / (f"samples_w{scale:g}.png" if others else "samples.png"))
        flat = {n: samples.reshape(len(samples), -1) for n, samples in by.items()}
        write_picture(paths[-1], to_image(marginals(flat)))
    return paths


def write_grids(out: Path, drawn: Drawn, columns: int | None) -> list[Path]:
    """Write a picture a budget and guidance scale, and one of all of them where there are several.

    That is guidance.png, a row a scale and a column a budget, or with one scale steps.png, a row a budget.
    """
    first, *others = drawn.values()
    pictures: dict[Path, Image.Image] = {}
    for name, samples in names(drawn).items():
        across = columns or min(len(samples), max(1, round(len(samples) ** 0.5)))
        pictures[out / f"{name}.png"] = grid(samples.astype(np.uint8), across)
    if others:
        few_by = {
            scale: {n: samples[: columns or 8].astype(np.uint8) for n, samples in by.items()}
            for scale, by in drawn.items()
            if scale is not None
        }
        pictures[out / "guidance.png"] = guidance_figure(few_by)
    elif len(first) > 1:
        few = {n: samples[: columns or 16].astype(np.uint8) for n, samples in first.items()}
        pictures[out / "steps.png"] = steps_figure({"samples": few})
    for path, image in pictures.items():
        write_picture(path, image)
    return list(pictures)
