"""How long a run takes on this machine, measured on its own updates."""

from dataclasses import replace
from itertools import count
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from anystep.core.device import pick_device
from anystep.data import Dataset
from anystep.objectives import Batch, Draw
from anystep.run.config import Config
from anystep.run.facts import DataFacts
from anystep.run.plan import UNITS, Segment, segments
from anystep.training.examples import DataExamples, Examples
from anystep.training.state import State
from anystep.training.trainer import batches
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


class Enough(Exception):  # noqa: N818  not an error
    """The time is up: the update is abandoned."""


class Timed:
    """Examples that note when each micro-batch begins, and abandon the update that begins one after ``within`` s."""

    def __init__(self, examples: Examples, within: float) -> None:
        self.examples, self.within = examples, within
        self.begun: list[float] = []

    def __len__(self) -> int:
        return len(self.examples)

    def read(self, index: NDArray[np.int64]) -> Any:
        """Return the stored examples."""
        return self.examples.read(index)

    def batch(self, rows: Any, index: NDArray[np.int64], draw: Draw) -> Batch:
        """Return a micro-batch. Raises Enough."""
        self.begun.append(perf_counter())
        spent = self.begun[-1] - self.begun[0]
        if spent > self.within and (len(self.begun) > 2 or spent > 2 * self.within):
            raise Enough
        return self.examples.batch(rows, index, draw)

    def seconds(self) -> tuple[float, int]:
        """Return the seconds of a micro-batch, and how many were timed: without the first, slower one if possible."""
        first = 1 if len(self.begun) > 2 else 0
        timed = len(self.begun) - 1 - first
        return (self.begun[-1] - self.begun[first]) / timed, timed


def measure(config: Config, dataset: Dataset, within: float = 2.0) -> Speed:
    """Return a run's speed from about ``within`` seconds of training; nothing is written.

    Every kind of phase is measured, at moments spread over it. A batch that takes long is computed in parts, of which
    only the first are. Pairs count as forward passes; checkpoints, the log and optimal transport are not counted.
    Raises ValueError for a network that does not fit the data.
    """
    config = replace(config, optimizer=replace(config.optimizer, lr=1e-9))  # as fast, and safe far into the run
    training = config.training
    size, group = training.batch // training.accumulate, config.objective.group
    parts = [4**n for n in range(10) if size % 4**n == 0 and size // 4**n >= SMALLEST and size // 4**n % group == 0]
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(training.matmul_precision)
    try:
        for part in reversed(parts[1:]):
            small = replace(config, training=replace(training, accumulate=training.accumulate * part))
            speed = extrapolate(small, dataset, within / 8)
            if speed.seconds / training.steps / part > within / 4:  # four times as many at a time would take too long
                return extrapolate(small, dataset, within)
        return extrapolate(config, dataset, within)
    finally:
        torch.set_float32_matmul_precision(precision)


def extrapolate(config: Config, dataset: Dataset, within: float) -> Speed:
    """Return the run's speed from its own micro-batches, for about ``within`` seconds."""
    facts, training = DataFacts.of(dataset, config.codec), config.training
    state = State(config, facts, pick_device(training.device))
    examples = DataExamples(dataset, facts.codec, facts.condition_codecs)
    parts = segments(config)
    kinds = [(type(part.phase.objective), part.phase.cost) for part in parts]
    measured: dict[Any, float] = {}  # seconds of an update
    seconds, images, forward = 0.0, 0, 0.0
    for part, kind in zip(parts, kinds, strict=True):
        if part.first > 0 or (part.phase.objective.uses_teacher and state.teacher is None):
            state.hand_over()
        if kind not in measured:
            one, times = time_phase(state, Timed(examples, within / len(set(kinds))), part)
            measured[kind] = one * training.accumulate
            images += times * training.batch // training.accumulate
        if part.phase.pairs is not None:
            seconds += part.phase.pairs.forward_passes * forward
        forward = measured[kind] / (training.batch * UNITS * part.phase.cost)
        seconds += measured[kind] * (part.last - part.first)
    parameters = sum(parameter.numel() for parameter in state.network.parameters())
    return Speed(parameters, seconds, images, str(state.device))


def time_phase(state: State, examples: Timed, part: Segment) -> tuple[float, int]:
    """Return the seconds of a micro-batch in updates spread evenly over a phase, and how many were timed."""
    try:
        for n in count():
            state.step = part.first + int(n * 0.618034 % 1 * (part.last - part.first))
            update(state, examples, next(batches(len(examples), state, state.step + 1)), part)
    except Enough:
        state.optimizer.zero_grad(set_to_none=True)
    return examples.seconds()
