"""The power averages that a run keeps, and one of any width made from them after training (Karras et al. 2024, sec. 3).

``profiles/step-00000200/`` holds one group a width of `ema.profiles`, ``ema_power_0.05``, and the updates averaged.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from anystep.core.errors import RunError, reason
from anystep.core.fields import check_value
from anystep.run import checkpoint
from anystep.run.averages import Mixture, Profile, check_width, mixture, reconstruct
from anystep.run.config import ModelConfig
from anystep.run.facts import DataFacts, read_model_config
from anystep.run.plan import phase_at, phases

#: distance of the profile that is made from the one wanted, over its own norm, above which a person is told
LOOSE = 0.05
#: the same, above which it is not that average any more
HOPELESS = 0.5
#: `Mixture.gain` above which a person is told: copies are float32, and a very narrow average is a small difference of
#: large terms. In a run whose rate fell to 0 (400 copies of 0.05 and 0.1) the error, over the average's distance from
#: the last parameters, was 0.01 at 250, 0.1 at 1,000 and 0.5 at 2,500
NOISY = 100.0
#: the same, above which the last parameters may be nearer to it
DROWNED = 2000.0
#: what it brings to delete a copy; a checkpoint holds the network and the optimizer too
DELETE = "to do without it"
#: what can be had where a checkpoint's power averages cannot
INSTEAD = "choose --weights ema, or another checkpoint with --checkpoint"


#: the average kept for evaluation, the trained parameters, or the width of a power average
Weights = Literal["ema", "raw"] | float


@dataclass(frozen=True)
class Trained:
    """What a run's network is built from, the facts of its data, and the weights after ``step`` updates.

    ``caution`` is what a person should know of how the weights were made.
    """

    run: Path
    step: int
    config: ModelConfig
    facts: DataFacts
    weights: dict[str, Tensor]
    caution: str | None = None


def read_trained(
    run: Path, weights: Weights = "ema", step: int | None = None, *, imports: Sequence[str] = ()
) -> Trained:
    """Read the weights of a run directory's checkpoint: the newest, or that after ``step`` updates.

    ``weights``: ``ema``, the average kept for evaluation, ``raw``, the trained parameters, or a number, the relative
    width of a power average, made from those that the run keeps (`profiles.power_average`, which says what else it
    raises). ``imports``: as for `read_config`. Raises RunError when ``run`` is no run directory, or has no checkpoint
    yet or not that one.
    """
    if isinstance(weights, str):
        check_value("weights", weights, Literal["ema", "raw"])
    else:
        check_width("weights", weights)
    if not run.is_dir():
        raise RunError(f"no run directory {run}")
    if not (run / "config.json").exists():
        raise RunError(f"{run} is not a run directory: it has no config.json")
    config, facts = read_model_config(run, imports=imports), DataFacts.read(run)
    found = dict(checkpoint.listing(run / "checkpoints"))
    if not found:
        raise RunError(f"{run} has no checkpoint yet: train it first, or go on with --resume")
    step = max(found) if step is None else step
    if step not in found:
        raise RunError(f"{run} has no checkpoint of step {step}; it has those of steps {', '.join(map(str, found))}")
    if not isinstance(weights, str):
        return Trained(run, step, config, facts, *power_average(run, config, step, weights))
    group = "ema_evaluation" if weights == "ema" else "network"
    tensors = checkpoint.load(found[step], (group,)).groups[group]
    return Trained(run, step, config, facts, dict(tensors))


def power_name(sigma_rel: float) -> str:
    """Return the name of the power average of that width."""
    return f"power_{sigma_rel!r}"


class Copies(Mapping[Profile, Mapping[str, Tensor]]):
    """Stored averages by their profile, each read when it is asked for.

    ``places``: a directory for each. ``last``: the checkpoint among them, whose network all must be of.
    """

    def __init__(self, places: Mapping[Profile, Path], last: Path) -> None:
        self.places, self.last = places, last
        self._shapes: dict[str, tuple[int, ...]] = {}

    def __getitem__(self, profile: Profile) -> Mapping[str, Tensor]:
        """Read one. Raises RunError when it is missing, truncated, foreign or of another network."""
        path, width = self.places[profile], profile.sigma_rel
        if path == self.last:
            return _own(path, width)
        group = f"ema_{power_name(width)}"
        tensors = checkpoint.load(path, (group,), DELETE).groups[group]
        self._shapes = self._shapes or _shapes(_own(self.last, width))
        if other := sorted(name for name, _ in _shapes(tensors).items() ^ self._shapes.items()):
            raise RunError(f"{path} does not fit {self.last}: {other[0]} is of another size; delete {path} {DELETE}")
        return tensors

    def __iter__(self) -> Iterator[Profile]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def power_average(run: Path, config: ModelConfig, step: int, sigma_rel: float) -> tuple[dict[str, Tensor], str | None]:
    """Return the average of width ``sigma_rel`` after ``step`` updates of a run, and what a person should know of it.

    A width that the run keeps is in the checkpoint of that step, which must be there; another is made of those in it
    and of all copies before it. Copies are of the run's last phase: a checkpoint of an earlier phase has its own
    averages only. Raises ValueError for a width that is not in [0.001, 0.2886], and RunError for a run that keeps no
    such averages, for a width that cannot be made of these, and when a file is damaged.
    """
    kept = config.ema.profiles
    if not kept:
        raise RunError(
            f"{run} keeps no power averages, so that no other width can be made: train it with --ema.profiles 0.05 0.1"
        )
    last = checkpoint.directory(run / "checkpoints", step)
    updates = _updates(last, "choose another checkpoint with --checkpoint")
    if updates == 0:
        raise RunError(f"no update of {run} was finite by step {step}: there is no average yet")
    if sigma_rel in kept:
        return dict(_own(last, sigma_rel)), None
    before = [path for number, path in checkpoint.listing(run / "profiles") if number <= step]
    after = {path: _updates(path, f"delete {path} {DELETE}") for path in before} | {last: updates}
    copies = Copies({Profile(count, width): path for path, count in after.items() for width in kept}, last)
    found = mixture(list(copies), Profile(updates, sigma_rel))
    has_copies = phase_at(config, step) + 1 == len(phases(config))
    told = _judged(found, sigma_rel, kept, f"{run} keeps by step {step}", denser=has_copies and sigma_rel < max(kept))
    return reconstruct(copies, found.shares), told


def _judged(found: Mixture, width: float, kept: tuple[float, ...], where: str, denser: bool) -> str | None:
    """Return what a person should know of a mixture, and could do. Raises RunError when it is another average.

    ``denser``: copies at shorter intervals would bring its profile nearer; they bring those of wider ones little.
    """
    nearer = f"ask for one nearer to {' or '.join(map(str, kept))}"
    among = f"train with {width:g} among --ema.profiles"
    advice = f"{nearer}, or {among}" + (", or with a smaller --ema.profile-every" if denser else "")
    if found.mismatch > HOPELESS:
        raise RunError(f"width {width:g} is too far from what {where}: {advice}")
    if found.gain > DROWNED:
        raise RunError(
            f"width {width:g} is too narrow for what {where}: rounding would count {found.gain:,.0f}-fold; "
            f"{nearer}, or --weights raw, or {among}"
        )
    told = []
    if found.mismatch > LOOSE:
        told.append(f"the average of width {width:g} is made with a profile {found.mismatch:.0%} off: {advice}")
    if found.gain > NOISY:
        told.append(
            f"the average of width {width:g} is a small difference of copies, whose rounding counts "
            f"{found.gain:,.0f}-fold: {nearer}, or {among}"
        )
    return "; ".join(told) or None


def _own(last: Path, width: float) -> Mapping[str, Tensor]:
    """Read the average of a width that the checkpoint ``last`` holds. Raises RunError when it cannot be read."""
    group = f"ema_{power_name(width)}"
    try:
        return checkpoint.load(last, (group,)).groups[group]
    except RunError as error:  # says to delete it, and other averages may be good
        why = reason(error.__cause__ or error)
        raise RunError(f"cannot read {group} of {last}: {why}; {INSTEAD}") from error


def _updates(path: Path, advice: str) -> int:
    """Read how many updates the averages in ``path`` are of. Raises RunError, with ``advice``, when it does not say."""
    try:
        return int(checkpoint.load(path, ()).values["updates"])
    except RunError as error:
        why = reason(error.__cause__ or error)
        raise RunError(f"cannot read {path / 'state.json'}: {why}; {advice}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"cannot use {path / 'state.json'}: updates: {reason(error)}; {advice}") from error


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
