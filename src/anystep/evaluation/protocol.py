"""The record that goes with every score: what was measured, how, on what, by which code."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import nn

from anystep.flow.ladder import Schedule
from anystep.flow.network import Network
from anystep.objectives.base import Objective

#: kinds of step that a schedule is spelled out for
MANY = 8


@dataclass(frozen=True)
class CodeVersion:
    """The package's version and, in a checkout, the commit and whether the package's files differ from it."""

    package: str
    commit: str | None = None
    dirty: bool | None = None

    def __str__(self) -> str:
        if self.commit is None:
            return self.package
        return f"{self.package} at {self.commit[:10]}{' with changes' if self.dirty else ''}"


@cache
def code_version() -> CodeVersion:
    """Return which code this is; outside a checkout, or without git, the package's version alone."""
    room = Path(__file__).resolve().parents[1]
    try:
        package = version("anystep")
    except PackageNotFoundError:
        package = "unknown"
    # An installed copy may lie inside somebody else's checkout: only a repository that tracks the package is ours.
    if not _git(room, "ls-files", "--", str(room)):
        return CodeVersion(package)
    changes = _git(room, "status", "--porcelain", "--", str(room))
    return CodeVersion(package, _git(room, "rev-parse", "HEAD"), None if changes is None else bool(changes))


def _git(folder: Path, *arguments: str) -> str | None:
    """Return git's answer in a folder, or None whatever goes wrong; GIT_DIR and the like of a hook are not obeyed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, env=environment)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


@dataclass(frozen=True)
class EvaluationProtocol:
    """All that must be equal for two scores to be compared.

    ``num`` samples against ``reference_num`` examples of ``reference`` (``reference_hash``: its fingerprint).
    ``quantised``: "uint8" when samples were rounded to pixels first, "none" for vectors. ``schedule`` and ``guidance``
    say in words what ran. ``metrics`` holds each metric's own parameters.
    """

    num: int
    reference: str
    reference_hash: str
    reference_num: int
    features: str
    resize: str
    quantised: str
    steps: int
    schedule: str
    guidance: float | str
    labels: str
    ema: str
    seed: int
    device: str
    precision: str
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    code: CodeVersion = field(default_factory=code_version)
    torch_version: str = torch.__version__

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def describe_schedule(schedule: Schedule) -> str:
    """Return a schedule in words: "1/2, 2 x 1/4"; steps that were asked for as d = 0 say so.

    Many unequal steps are summed up: "50 steps of 0.00181 to 0.0408 (d = 0) from t = 0.00631".
    """
    runs = [(key, len(list(group))) for key, group in groupby((step.length, step.d) for step in schedule)]
    if len(runs) > MANY:
        lengths, asked = [step.length for step in schedule], sorted({step.d for step in schedule})
        told = f" (d = {_number(asked[0])})" if len(asked) == 1 else ""
        span = f"{_number(min(lengths))} to {_number(max(lengths))}"
        return f"{len(schedule)} steps of {span}{told} from t = {_number(schedule[0].t)}"

    def words(length: float, d: float) -> str:
        return _number(length) if d == length else f"{_number(length)} (d = {_number(d)})"

    return ", ".join(words(*key) if count == 1 else f"{count} x {words(*key)}" for key, count in runs)


def _number(value: float) -> str:
    """Return a fraction where it is one of small numbers, else three digits."""
    fraction = Fraction(value).limit_denominator(1 << 16)
    return str(fraction) if abs(fraction - value) < 1e-12 else f"{value:.3g}"


def guidance_in_effect(objective: Objective, asked: float | None) -> float:
    """Return the guidance scale W of the samples in one number: as asked, else as trained in, else 1."""
    return float(trained_guidance(objective) if asked is None else asked)


def trained_guidance(objective: Objective) -> float:
    """Return the guidance scale W that the objective builds into the network, 1 for none."""
    trained = getattr(objective, "guidance", None)
    return float(trained) if isinstance(trained, int | float) else 1.0


def describe_guidance(objective: Objective, asked: float | None, scales: Sequence[float]) -> float | str:
    """Return how samples were guided: the scale W where one number says all, words where it does not.

    One number: every step was sampled with it, and nothing was trained in. Otherwise the words name what was trained
    in (the objective's ``guidance``) and what sampling added, step by step.
    """
    trained = trained_guidance(objective)
    built_in = trained != 1
    runs = [(scale, len(list(group))) for scale, group in groupby(scales)]
    if len(runs) == 1 and not built_in:
        return float(runs[0][0])
    sampled = ", ".join(f"{scale:g}" if count == 1 else f"{count} x {scale:g}" for scale, count in runs)
    how = "as trained" if asked is None else f"asked {asked:g}"
    trained_in = f"W = {trained:g} trained in" if built_in else "none trained in"
    return f"{how}: {trained_in}; sampling W by step {sampled}"


def describe_precision(network: Network) -> str:
    """Return the arithmetic of a sampling run: the weights' type and how float32 products are made."""
    parameters = list(network.parameters()) if isinstance(network, nn.Module) else []
    kinds = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in parameters}) or ["float32"]
    return f"{', '.join(kinds)}; float32 products {torch.get_float32_matmul_precision()}"


def describe_device(device: torch.device) -> str:
    """Return the device and, for a GPU, its model."""
    if device.type == "cuda" and torch.cuda.is_available():
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)
