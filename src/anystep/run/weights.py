"""The weights of a run's checkpoint: trained parameters, evaluation EMA, or a power-function EMA of any width.

A run stores power-function EMAs of the widths `ema.profiles`, as ``ema_power_0.05``, in its checkpoints and, more
often, in ``profiles/step-00000200/``. Another width is combined from them (Karras et al. 2024, section 3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from anystep.core.errors import RunError
from anystep.core.fields import check_value
from anystep.run import checkpoint
from anystep.run.averages import Mixture, Profile, Width, mixture, reconstruct
from anystep.run.config import ModelConfig
from anystep.run.facts import DataFacts, read_model_config

#: relative L2 error of a combined EMA's profile above which users are warned, and above which RunError is raised
WARN_MISMATCH, MAX_MISMATCH = 0.05, 0.5
#: the same for `Mixture.gain`: stored EMAs are float32, and a very narrow EMA is a small difference of large terms. In
#: a run whose learning rate fell to 0 (400 copies of 0.05 and 0.1) the error, relative to the EMA's distance from the
#: last parameters, was 0.01 at a gain of 250, 0.1 at 1,000 and 0.5 at 2,500
WARN_GAIN, MAX_GAIN = 100.0, 2000.0

#: the evaluation EMA, the trained parameters, or the relative width of a power-function EMA
Weights = Literal["ema", "raw"] | float


@dataclass(frozen=True)
class Trained:
    """What a run's network is built from, the facts of its data, and its weights after ``step`` updates.

    ``caution``: a warning about how the weights were computed.
    """

    run: Path
    step: int
    config: ModelConfig
    facts: DataFacts
    weights: Mapping[str, Tensor]
    caution: str | None = None


def read_trained(
    run: Path, weights: Weights = "ema", step: int | None = None, *, imports: Sequence[str] = ()
) -> Trained:
    """Read the weights of a run directory's checkpoint: the newest, or the one after ``step`` updates.

    ``weights``: ``ema``, the evaluation EMA, ``raw``, the trained parameters, or a number in [0.001, 0.2886], the width
    of a power-function EMA. ``imports``: as in `read_config`. Raises UsageError for other ``weights``, and RunError
    when ``run`` is not a run directory, has no such checkpoint, or has no EMAs that the width can be combined from.
    """
    check_value("weights", weights, Literal["ema", "raw"] if isinstance(weights, str) else Width)
    config, facts = read_model_config(run, imports=imports), DataFacts.read(run)
    found = dict(checkpoint.listing(run / "checkpoints"))
    if not found:
        raise RunError(f"{run} has no checkpoint yet: train it first, or resume it with --resume")
    step = max(found) if step is None else step
    if step not in found:
        raise RunError(f"{run} has no checkpoint of step {step}; it has those of steps {', '.join(map(str, found))}")
    if not isinstance(weights, str):
        return Trained(run, step, config, facts, *power_average(run, config, step, weights))
    group = "ema_evaluation" if weights == "ema" else "network"
    return Trained(run, step, config, facts, checkpoint.read(found[step], (group,)).groups[group])


def power_name(sigma_rel: float) -> str:
    """Return the name of the power-function EMA of that width."""
    return f"power_{sigma_rel!r}"


def power_average(
    run: Path, config: ModelConfig, step: int, sigma_rel: float
) -> tuple[Mapping[str, Tensor], str | None]:
    """Return the EMA of width ``sigma_rel`` after ``step`` updates of a run, and a warning about it or None.

    A width of `ema.profiles` is read from the checkpoint of that step, which must exist. Another one is combined from
    those in it and from all copies before it. Copies are of the run's last phase, so that for a checkpoint of an
    earlier phase only its own EMAs count. Raises RunError when a run has no such EMAs, when they do not suffice for the
    width, and when a file is damaged.
    """
    kept = config.ema.profiles
    if not kept:
        raise RunError(f"{run} has no power averages to combine: train it with --ema.profiles 0.05 0.1")
    last = checkpoint.directory(run / "checkpoints", step)
    updates = _updates(last)
    if updates == 0:
        raise RunError(f"no update of {run} was finite by step {step}: there is no average yet")
    if sigma_rel in kept:
        return _read_average(last, sigma_rel), None
    copies = {path: _updates(path) for number, path in checkpoint.listing(run / "profiles") if number <= step}
    stored = {Profile(n, width): path for path, n in (copies | {last: updates}).items() for width in kept}
    found = mixture(list(stored), Profile(updates, sigma_rel))
    caution = check_mixture(found, sigma_rel, kept)
    shapes = _shapes(_read_average(last, kept[0]))

    def read(profile: Profile) -> Mapping[str, Tensor]:
        path = stored[profile]
        tensors = _read_average(path, profile.sigma_rel)
        if different := _shapes(tensors).items() ^ shapes.items():
            name, _ = min(different)
            raise RunError(f"{path} does not fit {last}: {name} is of another size; {_advice(path)}")
        return tensors

    return reconstruct(read, found.shares), caution


def check_mixture(found: Mixture, width: float, kept: Sequence[float]) -> str | None:
    """Return a warning if a combined EMA is inexact, or None. Raises RunError if it is another average."""
    warnings = []
    for problem, value, warn, limit in (
        (f"its profile is {found.mismatch:.0%} off", found.mismatch, WARN_MISMATCH, MAX_MISMATCH),
        (f"it is a small difference whose rounding counts {found.gain:,.0f}-fold", found.gain, WARN_GAIN, MAX_GAIN),
    ):
        text = (
            f"width {width:g} can only be approximated from the stored averages ({problem}): choose one nearer to "
            f"{' or '.join(map(str, kept))}, or train with {width:g} among --ema.profiles"
        )
        if value > limit:
            raise RunError(text)
        if value > warn:
            warnings.append(text)
    return "; ".join(warnings) or None


def _advice(path: Path) -> str:
    """Return what to do without a damaged directory. A checkpoint is not to be deleted: it has other weights too."""
    if path.parent.name == "profiles":
        return f"delete {path} to do without it"
    return "choose another checkpoint with --checkpoint, or --weights ema"


def _updates(path: Path) -> int:
    """Return the number of updates that the EMAs in a directory have seen."""
    updates = checkpoint.read(path, (), _advice(path)).values.get("updates")
    if not isinstance(updates, int):
        raise RunError(f"{path / 'state.json'} does not contain the number of updates; {_advice(path)}")
    return updates


def _read_average(path: Path, width: float) -> Mapping[str, Tensor]:
    group = f"ema_{power_name(width)}"
    return checkpoint.read(path, (group,), _advice(path)).groups[group]


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
