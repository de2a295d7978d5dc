"""A run's phases laid over its updates, and what the whole costs.

Cost is counted in network forward units: one example through the network is 1, its backward pass 2, so that an update
of flow matching costs 3 an example. Targets, the making of pairs and the training of a teacher all count.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Protocol

from anystep.core.errors import UsageError
from anystep.flow.query import PhaseProgress
from anystep.objectives.base import Objective, Phase
from anystep.run.config import Config, InitConfig, OptimizerConfig, TrainingConfig

#: forward 1, backward 2: what an example costs flow matching, the unit of `Objective.cost`
UNITS = 3


@dataclass(frozen=True)
class Segment:
    """A phase in its place: it makes the updates ``first`` ... ``last - 1`` of the run."""

    phase: Phase
    first: int
    last: int

    def progress(self, step: int) -> PhaseProgress:
        """Return how far the phase is when ``step`` updates of the run are done."""
        return PhaseProgress(step - self.first, self.last - self.first, self.phase.index)

    def learning_rate(self, step: int, optimizer: OptimizerConfig, batch: int) -> float:
        """Return the rate of update ``step`` = 0, 1, ... of the run.

        It rises linearly at the beginning of the run, and falls linearly to 0 at the end of every phase.
        """
        seen = (step + 1) * batch
        rising = min(1.0, seen / optimizer.warmup) if optimizer.warmup else 1.0
        left = 1 - (step - self.first) / (self.last - self.first)
        falling = min(1.0, left / optimizer.decay) if optimizer.decay else 1.0
        return optimizer.lr * min(rising, falling)


class Planned(Protocol):
    """The sections that a run's phases follow from: those of a `Config`, or of a `ModelConfig`."""

    @property
    def objective(self) -> Objective:
        """The method, which names the phases."""

    @property
    def init(self) -> InitConfig:
        """What the run starts from."""

    @property
    def training(self) -> TrainingConfig:
        """How long it is."""


def phases(config: Planned) -> Sequence[Phase]:
    """Return the run's phases; a trained network to begin with (`init.run`) is the teacher where one is needed."""
    every = config.objective.phases()
    return every if config.init.run is None else [phase for phase in every if not phase.teaches]


def segments(config: Planned) -> list[Segment]:
    """Return the phases over the run's updates, in proportion to their shares.

    Raises ValueError when a phase would have no update.
    """
    parts, steps = phases(config), config.training.steps
    total = sum(phase.share for phase in parts)
    ends = [round(done / total * steps) for done in accumulate(phase.share for phase in parts)]
    laid = [Segment(phase, first, last) for phase, first, last in zip(parts, [0, *ends], ends, strict=False)]
    if any(segment.first == segment.last for segment in laid):
        raise UsageError(
            f"training.images {config.training.images} is {steps} updates, too few for the {len(parts)} phases of "
            f"{config.objective.name}: raise it, or lower training.batch"
        )
    return laid


def phase_at(config: Planned, step: int) -> int:
    """Return the number, from 0, of the phase that weights after ``step`` updates are of; at an edge, the one before.

    The checkpoint at a phase's end was written before the hand-over.
    """
    return next(n for n, segment in enumerate(segments(config)) if step <= segment.last)


def forward_units(config: Config) -> int:
    """Return what the run costs, in network forward units of one example."""
    batch = config.training.batch
    updates = sum((part.last - part.first) * batch * UNITS * part.phase.cost for part in segments(config))
    return round(updates) + pair_units(config)


def pair_units(config: Config) -> int:
    """Return the forward passes that make the run's pairs."""
    return sum(phase.pairs.forward_passes for phase in phases(config) if phase.pairs is not None)


def with_budget(config: Config, units: float) -> Config:
    """Return the run with the length that costs ``units`` network forward units, whole updates, rounded.

    Raises ValueError when the pairs alone cost more.
    """
    parts = phases(config)
    left = units - pair_units(config)
    if left <= 0:
        raise UsageError(
            f"making objective.pairs costs {pair_units(config):,} network forward units of a budget of {units:,.0f}: "
            "lower objective.pairs or objective.pair_steps, or raise the budget"
        )
    an_image = UNITS * sum(phase.share * phase.cost for phase in parts) / sum(phase.share for phase in parts)
    batch = config.training.batch
    images = max(1, round(left / an_image / batch)) * batch
    return replace(config, training=replace(config.training, images=images))
