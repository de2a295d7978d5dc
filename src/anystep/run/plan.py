"""A run's phases laid over its updates, and what the run costs.

Cost is counted in forward passes of the network for one example: a training example costs flow matching 3, as backward
counts 2. Targets, the generation of pairs and the training of a teacher all count.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from anystep.core.errors import UsageError, counted
from anystep.flow.query import PhaseProgress
from anystep.objectives.base import Phase
from anystep.run.config import Config, ModelConfig, OptimizerConfig

#: forward passes that a training example costs flow matching, the unit of `Objective.cost`
UNITS = 3


@dataclass(frozen=True)
class Segment:
    """The updates ``first`` ... ``last - 1`` of a run, which are those of ``phase``."""

    phase: Phase
    first: int
    last: int

    def progress(self, step: int) -> PhaseProgress:
        """Return how much of the phase is done after ``step`` updates of the run."""
        return PhaseProgress(step - self.first, self.last - self.first, self.phase.index)

    def learning_rate(self, step: int, optimizer: OptimizerConfig, batch: int) -> float:
        """Return the learning rate of update ``step`` = 0, 1, ... of the run.

        It rises linearly at the start of the run, and falls linearly to 0 at the end of every phase.
        """
        seen = (step + 1) * batch
        rising = min(1.0, seen / optimizer.warmup) if optimizer.warmup else 1.0
        left = 1 - (step - self.first) / (self.last - self.first)
        falling = min(1.0, left / optimizer.decay) if optimizer.decay else 1.0
        return optimizer.lr * min(rising, falling)


def phases(config: Config | ModelConfig) -> Sequence[Phase]:
    """Return the run's phases; with `init.run` that run is the teacher, so that no phase trains one."""
    return [phase for phase in config.objective.phases() if config.init.run is None or not phase.teaches]


def segments(config: Config | ModelConfig) -> list[Segment]:
    """Return the phases over the run's updates, in proportion to their shares.

    Raises UsageError when a phase would have no update.
    """
    parts, steps = phases(config), config.training.steps
    total = sum(phase.share for phase in parts)
    ends = [round(done / total * steps) for done in accumulate(phase.share for phase in parts)]
    laid = [Segment(phase, first, last) for phase, first, last in zip(parts, [0, *ends], ends, strict=False)]
    if any(segment.first == segment.last for segment in laid):
        updates = counted(steps, "update")
        raise UsageError(
            f"training.images {config.training.images} is {updates}, too few for the {len(parts)} phases of "
            f"{config.objective.name}: raise it, or lower training.batch"
        )
    return laid


def phase_at(config: Config | ModelConfig, step: int) -> int:
    """Return the number, from 0, of the phase that the checkpoint after ``step`` updates belongs to.

    The checkpoint at a phase's end is still of that phase: the teacher is updated after it.
    """
    return next(n for n, segment in enumerate(segments(config)) if step <= segment.last)


def forward_units(config: Config) -> int:
    """Return what the run costs, in forward passes for one example."""
    batch = config.training.batch
    updates = sum((part.last - part.first) * batch * UNITS * part.phase.cost for part in segments(config))
    return round(updates) + pair_units(config)


def pair_units(config: Config) -> int:
    """Return the forward passes that generate the run's pairs."""
    return sum(phase.pairs.forward_passes for phase in phases(config) if phase.pairs is not None)


def with_budget(config: Config, units: float) -> Config:
    """Return the run with the length that costs ``units`` forward passes, rounded to whole updates.

    Raises UsageError when the pairs alone cost more.
    """
    parts = phases(config)
    left = units - pair_units(config)
    if left <= 0:
        raise UsageError(
            f"generating objective.pairs costs {pair_units(config):,} network forward passes of a budget of "
            f"{units:,.0f}: lower objective.pairs or objective.pair_steps, or raise the budget"
        )
    per_image = UNITS * sum(phase.share * phase.cost for phase in parts) / sum(phase.share for phase in parts)
    batch = config.training.batch
    images = max(1, round(left / per_image / batch)) * batch
    return replace(config, training=replace(config.training, images=images))
