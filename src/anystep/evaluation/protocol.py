"""The record that goes with every score: what was measured, how, on what data, by which code."""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from functools import cache
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from anystep.data import Dataset
from anystep.evaluation.features.base import FeatureSpace
from anystep.evaluation.metrics.base import Kept, Metric
from anystep.flow.ladder import Schedule
from anystep.model.generator import Generator
from anystep.objectives.base import Objective

T = TypeVar("T")

#: most kinds of step that a schedule is written out for
MANY = 8


@cache
def code_version() -> dict[str, Any]:
    """Return the package's version and, in a git checkout, the commit and whether the package's files differ."""
    room = Path(__file__).resolve().parents[1]
    # An installed copy may be inside another project's checkout: only a repository that tracks the package is ours.
    tracked = bool(_git(room, "ls-files", "--", str(room)))
    commit = _git(room, "rev-parse", "HEAD") if tracked else None
    changes = _git(room, "status", "--porcelain", "--", str(room)) if tracked else None
    return {"package": version("anystep"), "commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    """Return git's output in a folder, None if it fails. GIT_DIR and the like, which a hook sets, are ignored."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, env=environment)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def describe_evaluation(
    generator: Generator,
    reference: Dataset,
    heldout: Dataset | None,
    metrics: Mapping[str, Metric],
    spaces: Mapping[str, FeatureSpace],
    real: Mapping[str, Kept],
    num: int,
    seed: int,
) -> dict[str, Any]:
    """Return what must be equal for two scores to be compared, without what differs between numbers of steps.

    ``num`` samples against ``reference_num`` examples of ``reference`` (``reference_hash``: its fingerprint).
    ``quantised``: "uint8" when samples were rounded to pixels first, "none" for vectors. ``key_version`` is that of the
    random keys of noise and floor. ``metrics`` holds each metric's own parameters, and how much real data it used.
    """
    labels = "none" if generator.conditions.label is None else "balanced"
    if generator.usual is not None:
        labels = f"conditions of {min(num, len(heldout or reference))} {'held-out' if heldout else 'training'} rows"
    network, picture, used = generator.network, generator.codec.looks == "picture", list(spaces.values())
    parameters = list(network.parameters()) if isinstance(network, nn.Module) else []
    types = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in parameters}) or ["float32"]
    return {
        "num": num,
        "reference": reference.name,
        "reference_hash": reference.fingerprint,
        "reference_num": len(reference),
        "features": ", ".join(dict.fromkeys(space.name for space in used)),
        "resize": ", ".join(dict.fromkeys(space.resize for space in used)),
        "quantised": ", ".join(dict.fromkeys("uint8" if picture and space.rounded else "none" for space in used)),
        "labels": labels,
        "ema": generator.ema,
        "seed": seed,
        "key_version": generator.key_version,
        "device": describe_device(generator.device),
        "precision": f"{', '.join(types)}; float32 products {torch.get_float32_matmul_precision()}",
        "metrics": {
            name: asdict(metric)
            | ({"features_version": spaces[metric.space].version} if spaces[metric.space].version else {})
            | {f"features_{fact}": value for fact, value in spaces[metric.space].facts.items()}
            | (_real_data(metric, real[metric.space], heldout, num) if metric.space in real else {})
            for name, metric in metrics.items()
        },
        "code": code_version(),
        "torch_version": torch.__version__,
    }


def _real_data(metric: Metric, kept: Kept, heldout: Dataset | None, num: int) -> dict[str, Any]:
    if "heldout" in metric.needs and heldout is not None and kept.heldout is not None:
        number = len(kept.heldout.rows) or len(heldout)
        return {"heldout": heldout.name, "heldout_hash": heldout.fingerprint, "heldout_num": number}
    return {"rows": min(num, len(kept.rows))} if "rows" in metric.needs else {}


def describe_schedule(schedule: Schedule) -> str:
    """Return a schedule in words: "1/2, 2 x 1/4"; where d is not the length of the step, "2 x 1/4 (d = 0)".

    Many unequal steps are summed up: "50 steps of 0.00181 to 0.0408 (d = 0) from t = 0.00631".
    """

    def words(step: tuple[float, float]) -> str:
        length, d = step
        return _number(length) if d == length else f"{_number(length)} (d = {_number(d)})"

    runs = _runs([(step.length, step.d) for step in schedule], words)
    if len(runs) <= MANY:
        return ", ".join(runs)
    lengths, sizes = [step.length for step in schedule], {step.d for step in schedule}
    d = f" (d = {_number(sizes.pop())})" if len(sizes) == 1 else ""
    span = f"{_number(min(lengths))} to {_number(max(lengths))}"
    return f"{len(schedule)} steps of {span}{d} from t = {_number(schedule[0].t)}"


def _number(value: float) -> str:
    """Return a fraction if it is one of small numbers, else three digits."""
    fraction = Fraction(value).limit_denominator(1 << 16)
    return str(fraction) if abs(fraction - value) < 1e-12 else f"{value:.3g}"


def _runs(values: Sequence[T], words: Callable[[T], str]) -> list[str]:
    """Return each run of equal values in words, with its length: "1/2", "2 x 1/4"."""
    counted = [(words(value), len(list(group))) for value, group in groupby(values)]
    return [text if count == 1 else f"{count} x {text}" for text, count in counted]


def trained_guidance(objective: Objective) -> float:
    """Return the guidance scale W that the objective builds into the network, 1 for none."""
    trained = getattr(objective, "guidance", None)
    return float(trained) if isinstance(trained, int | float) else 1.0


def describe_guidance(objective: Objective, requested: float | None, scales: Sequence[float]) -> float | str:
    """Return how samples were guided: the scale W if every step used it and nothing was trained in, else words.

    The words name what was trained in (the objective's ``guidance``) and what sampling added, step by step.
    """
    trained = trained_guidance(objective)
    if len(set(scales)) == 1 and trained == 1:
        return float(scales[0])
    how = "as trained" if requested is None else f"asked {requested:g}"
    trained_in = "none trained in" if trained == 1 else f"W = {trained:g} trained in"
    return f"{how}: {trained_in}; sampling W by step {', '.join(_runs(scales, '{:g}'.format))}"


def describe_device(device: torch.device) -> str:
    """Return the device and, for a GPU, its model."""
    if device.type == "cuda" and torch.cuda.is_available():
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def summarise(protocol: Mapping[str, Any]) -> str:
    """Return in words what records were measured on: samples, reference, feature space."""
    num, size, features = protocol["num"], protocol["reference_num"], protocol["features"].replace("_", " ")
    return f"{num:,} samples against {size:,} of {protocol['reference']}, {features}"
