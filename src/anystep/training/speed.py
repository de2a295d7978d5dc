"""How long a run takes on this machine, measured on its own updates."""

from dataclasses import replace
from itertools import count
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anystep.core.device import pick_device
from anystep.data import Dataset
from anystep.objectives import Batch, Draw
from anystep.run.config import Config
from anystep.run.facts import DataFacts
from anystep.run.plan import UNITS, Segment, segments
from anystep.training.examples import DataExamples
from anystep.training.state import State
from anystep.training.trainer import decide_precision, matmul_precision
from anystep.training.update import update

#: fewest examples that are computed at a time
SMALLEST = 4


class Speed(NamedTuple):
    """The size of a run's network, and the time that the run is expected to take on ``device``."""

    parameters: int
    seconds: float
    images: int
    """Training examples that were timed."""
    device: str


class OutOfTime(Exception):  # noqa: N818  not an error
    """The update is abandoned."""


class Timed:
    """Examples that record when each micro-batch starts, and abandon the update that starts one after ``within`` s."""

    def __init__(self, examples: DataExamples, within: float) -> None:
        self.examples, self.within = examples, within
        self.started: list[float] = []

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, index: NDArray[np.int64], draw: Draw) -> Batch:
        """Return a micro-batch. Raises OutOfTime."""
        self.started.append(perf_counter())
        spent = self.started[-1] - self.started[0]
        if spent > self.within and (len(self.started) > 2 or spent > 2 * self.within):
            raise OutOfTime
        return self.examples.batch(index, draw)


def measure(config: Config, dataset: Dataset, within: float = 2.0) -> Speed:
    """Return a run's speed from about ``within`` seconds of training; nothing is written.

    Every kind of phase is measured, at times spread over it. A batch that takes long is computed in micro-batches, of
    which only the first are. Pairs count as forward passes; checkpoints, the log and optimal transport are not counted.
    Raises UsageError for a network that does not fit the data.
    """
    config = replace(config, optimizer=replace(config.optimizer, lr=1e-9))  # as fast, and safe far into the run
    training, facts = config.training, DataFacts.of(dataset, config.codec)
    size, group = training.batch // training.accumulate, config.objective.group
    parts = [4**n for n in range(10) if size % 4**n == 0 and size // 4**n >= SMALLEST and size // 4**n % group == 0]
    with matmul_precision(training.matmul_precision):
        for part in reversed(parts[1:]):
            small = replace(config, training=replace(training, accumulate=training.accumulate * part))
            speed = extrapolate(small, dataset, facts, within / 8)
            if speed.seconds / training.steps / part > within / 4:  # four times as many at a time would take too long
                return extrapolate(small, dataset, facts, within)
        return extrapolate(config, dataset, facts, within)


def extrapolate(config: Config, dataset: Dataset, facts: DataFacts, within: float) -> Speed:
    """Return the run's speed from its own micro-batches, for about ``within`` seconds."""
    training, device = config.training, pick_device(config.training.device)
    state = State(decide_precision(config, device), facts, device)
    examples = DataExamples(dataset, facts.codec, facts.condition_codecs)
    parts = segments(config)
    kinds = [(type(part.phase.objective), part.phase.cost) for part in parts]
    measured: dict[Any, float] = {}  # seconds of an update
    seconds, images, forward = 0.0, 0, 0.0
    for part, kind in zip(parts, kinds, strict=True):
        if part.first > 0 or (part.phase.objective.uses_teacher and state.teacher is None):
            state.update_teacher()
        if kind not in measured:
            per_batch, timed = time_phase(state, Timed(examples, within / len(set(kinds))), part)
            measured[kind] = per_batch * training.accumulate
            images += timed * training.batch // training.accumulate
        if part.phase.pairs is not None:
            seconds += part.phase.pairs.forward_passes * forward
        forward = measured[kind] / (training.batch * UNITS * part.phase.cost)
        seconds += measured[kind] * (part.last - part.first)
    parameters = sum(parameter.numel() for parameter in state.network.parameters())
    return Speed(parameters, seconds, images, str(state.device))


def time_phase(state: State, examples: Timed, part: Segment) -> tuple[float, int]:
    """Return the seconds per micro-batch in updates spread evenly over a phase, and how many were timed.

    The first, slower one is not counted if there are others.
    """
    try:
        for n in count():
            state.step = part.first + int(n * 0.618034 % 1 * (part.last - part.first))
            update(state, examples, part)
    except OutOfTime:
        state.optimizer.zero_grad(set_to_none=True)
    first = 1 if len(examples.started) > 2 else 0
    timed = len(examples.started) - 1 - first
    return (examples.started[-1] - examples.started[first]) / timed, timed
