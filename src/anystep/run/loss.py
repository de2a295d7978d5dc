"""What the regression's error is: the objective's own, or one of Haar bands with their weights (P2; METHODS 9.4)."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from anystep.core.fields import at_least, finite, in_range, one_of, positive
from anystep.flow.penalties.haar import (
    DETAILS,
    BandPenalty,
    band_energy,
    band_error,
    check_levels,
    haar_levels,
    sides,
    track,
    whitened,
)
from anystep.objectives import Batch, Draw, Losses, Networks, Objective, Progress, Query
from anystep.objectives.base import regress

Kind = Literal["objective", "haar"]
Bands = Literal["whitened", "fixed", "flat"]
#: what `Objective.targets` takes, for one micro-batch
Part = tuple[Batch, Draw, Progress]


@dataclass(frozen=True)
class LossConfig:
    """How far an answer is off: as the objective says, or in the bands of a Haar transform."""

    kind: Kind = "objective"
    """`objective`: its own penalty, the squared error for most; `haar`: a penalty on Haar bands in its place (P2)."""
    levels: int | None = None
    """Halvings of every side, at least 1; None: as many as the sides allow, 5 at 32 x 32. With `haar`."""
    penalty: BandPenalty = "l2"
    """Of a coefficient w: `l2` w^2, `l1` |w|, `charbonnier` sqrt(w^2 + eps^2) - eps. With `haar`."""
    eps: float = 1e-3
    """Where `charbonnier` turns from a parabola into the distance, in units of normalised data, above 0."""
    bands: Bands = "whitened"
    """`whitened`: weights 1 / E[w^2] of targets, mean 1 over elements; `fixed`: `weights`; `flat`: 1. With `haar`."""
    weights: tuple[float, ...] | None = None
    """With `fixed`: of the low band, then of each level's details, coarse to fine, levels + 1 in all; not negative."""
    decay: float = 0.99
    """With `whitened`: decay an update of the moving average of energies, in [0, 1)."""

    def __post_init__(self) -> None:
        one_of("loss.kind", self.kind, Kind)
        one_of("loss.penalty", self.penalty, BandPenalty)
        one_of("loss.bands", self.bands, Bands)
        if self.levels is not None:
            at_least("loss.levels", self.levels, 1)
        positive("loss.eps", self.eps)
        in_range("loss.decay", self.decay, 0, 1, open_end=True)
        for weight in self.weights or ():
            finite("loss.weights", weight)
            in_range("loss.weights", weight, 0, float("inf"))
        if self.kind == "objective":
            self._leave_out("kind haar", "levels", "penalty", "eps", "bands", "weights", "decay")
            return
        if self.penalty != "charbonnier":
            self._leave_out("penalty charbonnier", "eps")
        if self.bands != "whitened":
            self._leave_out("bands whitened", "decay")
        if self.bands != "fixed":
            self._leave_out("bands fixed", "weights")
        elif self.weights is None or not any(self.weights):
            raise ValueError("loss.bands fixed needs loss.weights: of the low band, then of each level, coarse to fine")
        if self.penalty == "l2" and self.bands != "whitened" and len(set(self.weights or ())) <= 1:
            same = "flat" if self.bands == "flat" else "fixed, all weights alike,"
            raise ValueError(
                f"loss.bands {same} with loss.penalty l2 is the squared error, as Haar bands are a rotation: set "
                "loss.bands whitened or other weights, or loss.penalty l1 or charbonnier"
            )

    def _leave_out(self, where: str, *names: str) -> None:
        """Raise ValueError when one of these fields is set, as it does nothing here."""
        default = {f.name: f.default for f in dataclasses.fields(self)}
        for name in names:
            if getattr(self, name) != default[name]:
                raise ValueError(f"loss.{name} does nothing without loss.{where}: set that too, or leave it out")

    def check(self, objective: Objective) -> None:
        """Raise ValueError when a phase of the method has an error of its own in place of the squared one."""
        if self.kind == "objective":
            return
        for kind in (type(phase.objective) for phase in objective.phases()):
            if kind.error is not Objective.error or kind.loss is not Objective.loss:
                raise ValueError(
                    f"loss.kind haar replaces the squared error, and {kind.name} has an error of its own: leave it out"
                )

    def build(self, shape: Sequence[int]) -> "HaarLoss | None":
        """Return the loss of examples of this shape, None for the objective's. Raises ValueError if it has no bands."""
        return None if self.kind == "objective" else HaarLoss(self, shape)


class HaarLoss:
    """A penalty on Haar bands. All micro-batches of an update share its weights, which come from the updates before.

    The first update weighs by the energies of its own targets, made for that in a pass without a gradient.
    """

    def __init__(self, config: LossConfig, shape: Sequence[int]) -> None:
        self.config, self.shape = config, (1, *shape)
        most, lengths = haar_levels(self.shape), sides(self.shape)
        if most == 0:
            size = " x ".join(map(str, lengths))
            raise ValueError(f"loss.kind haar halves every side, and {size} has an odd one: leave loss.kind out")
        self.levels = most if config.levels is None else config.levels
        try:
            check_levels(self.shape, self.levels)
        except ValueError as error:
            raise ValueError(f"loss.{error}") from None
        self.weights: Tensor | None = None
        if config.weights is not None:
            low, *details = config.weights
            if len(details) != self.levels:
                raise ValueError(
                    f"loss.weights must be {self.levels + 1}, of the low band and {self.levels} levels, coarse to "
                    f"fine, got {len(config.weights)}"
                )
            self.weights = torch.tensor([low, *(w for w in details for _ in DETAILS[len(lengths)])])
        self.energy: Tensor | None = None  # float64 [bands] on the CPU: the average over applied updates
        self.seen: list[Tensor] = []  # of the update's micro-batches

    def begin(self, objective: Objective, networks: Networks, parts: Iterable[Part]) -> None:
        """Fix the weights of an update, made of ``parts``; only the first update looks at them."""
        if self.config.bands != "whitened":
            return
        self.seen = []
        energy = self.energy
        if energy is None:
            made = (objective.targets(networks, *part).target for part in parts)
            energy = mean([band_energy(target, self.levels) for target in made])
        self.weights = whitened(energy, self.shape, self.levels).float()

    def rows(self, objective: Objective, networks: Networks, part: Part) -> Losses:
        """Return each row's penalty, as `Objective.loss` does, and keep the energies of its targets."""
        targets = objective.targets(networks, *part)
        if self.config.bands == "whitened":
            self.seen.append(band_energy(targets.target, self.levels))
        return regress(networks, targets, self.penalty)

    def penalty(self, prediction: Tensor, target: Tensor, query: Query) -> Tensor:
        """Return how far the answer to ``query`` is off, [B]: the weighted penalty of its bands."""
        return band_error(prediction, target, self.levels, self.weights, self.config.penalty, self.config.eps)

    def applied(self) -> None:
        """Take the update's energies into the average; an update that is skipped leaves it as it was."""
        if self.seen:
            self.energy = track(self.energy, mean(self.seen), self.config.decay)


def mean(energies: Sequence[Tensor]) -> Tensor:
    """Return the mean of micro-batches' energies, float64 on the CPU."""
    return torch.stack(list(energies)).cpu().double().mean(0)
