"""The power averages that a run keeps, and one of any width made from them after training (Karras et al. 2024, sec. 3).

``profiles/step-00000200/`` holds one group a width of `ema.profiles`, ``ema_power_0.05``, and the updates averaged.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from anystep.training import checkpoint
from anystep.training.config import Config
from anystep.training.ema import Profile, check_width, mismatch, reconstruct
from anystep.training.errors import RunError

#: distance of the profile that is made from the one wanted, over its own norm, above which a person is told
LOOSE = 0.05
#: the same, above which it is not that average any more
HOPELESS = 0.5


def power_name(sigma_rel: float) -> str:
    """Return the name of the power average of that width."""
    return f"power_{sigma_rel!r}"


class Copies(Mapping[Profile, Mapping[str, Tensor]]):
    """Stored averages by their profile, each read when it is asked for. ``places``: a directory for each."""

    def __init__(self, places: Mapping[Profile, Path]) -> None:
        self.places = places

    def __getitem__(self, profile: Profile) -> Mapping[str, Tensor]:
        """Read one. Raises RunError when it is missing, truncated or foreign."""
        group = f"ema_{power_name(profile.sigma_rel)}"
        return _load(self.places[profile], (group,)).groups[group]

    def __iter__(self) -> Iterator[Profile]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def power_average(run: Path, config: Config, step: int, sigma_rel: float) -> tuple[dict[str, Tensor], str | None]:
    """Return the average of width ``sigma_rel`` after ``step`` updates of a run, and what a person should know of it.

    It is made of the power averages in the checkpoint of that step, which must be there, and of all copies before it.
    Copies are of the run's last phase: a checkpoint of an earlier phase has its own averages only. Raises ValueError
    for a width that is not in (0, 0.2886], and RunError for a run that keeps no such averages, for a width that these
    are too far from, and when a file is damaged.
    """
    check_width("weights", sigma_rel)
    kept = config.ema.profiles
    if not kept:
        raise RunError(
            f"{run} keeps no power averages, so that no other width can be made: train it with --ema.profiles 0.05 0.1"
        )
    last = checkpoint.directory(run / "checkpoints", step)
    places = [path for number, path in checkpoint.listing(run / "profiles") if number <= step]
    after = {path: int(_load(path, ()).values["updates"]) for path in [*places, last]}
    if after[last] == 0:
        raise RunError(f"no update of {run} was finite by step {step}: there is no average yet")
    copies = Copies({Profile(updates, width): path for path, updates in after.items() for width in kept})
    off = mismatch(list(copies), Profile(after[last], sigma_rel))
    advice = f"ask for one nearer to {' or '.join(map(str, kept))}, or train with a smaller --ema.profile-every"
    if off > HOPELESS:
        raise RunError(f"width {sigma_rel:g} is too far from what {run} keeps by step {step}: {advice}")
    told = f"the average of width {sigma_rel:g} is made with a profile {off:.0%} off: {advice}" if off > LOOSE else None
    return reconstruct(copies, after[last], sigma_rel), told


def _load(path: Path, groups: tuple[str, ...]) -> checkpoint.Checkpoint:
    return checkpoint.load(path, groups, "to do without it")
