"""The training loop: phases, updates, records, checkpoints. What an update does is in `update.py`.

A run directory holds `config.json` (complete, re-runnable), `run.json` (facts of the data, versions), `log.jsonl`,
`timing.jsonl`, `checkpoints/`, `previews/` and, with `ema.profiles`, `profiles/`. Two runs of one config have equal
files, but for `timing.jsonl`, `previews/` and, while they train, the checkpoints that are written by the clock.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from signal import Signals
from typing import Any

import torch

from anystep.core.device import has_bfloat16, pick_device
from anystep.core.errors import UsageError
from anystep.data import Dataset
from anystep.run import checkpoint
from anystep.run.config import Config
from anystep.run.directory import check_data, check_directory, write_run
from anystep.run.facts import DataFacts, read_config
from anystep.run.log import RunLog, summary_writer
from anystep.run.plan import Segment, phases, segments
from anystep.run.weights import read_trained
from anystep.training.coupling import CoupledExamples
from anystep.training.examples import DataExamples, Examples
from anystep.training.notes import data_notes, length_note, notes
from anystep.training.pairs import make_pairs
from anystep.training.preview import Previews
from anystep.training.signals import StopRequest
from anystep.training.state import State
from anystep.training.update import update

#: seconds until the first checkpoint by the clock
FIRST = 60.0

Record = dict[str, Any]
BeginCallback = Callable[[Config, Dataset, int], None]
StepCallback = Callable[[int, Record | None], None]
MessageCallback = Callable[[str], None]


@dataclass(frozen=True)
class TrainResult:
    """How a run ended: after ``step`` updates, ``stopped`` by a signal or None when it is complete."""

    step: int
    stopped: Signals | None = None


def train(
    config: Config,
    out: str | Path,
    *,
    resume: bool = False,
    watch: StepCallback | None = None,
    say: MessageCallback | None = None,
    begin: BeginCallback | None = None,
    stop: StopRequest | None = None,
) -> TrainResult:
    """Train as ``config`` describes into the run directory ``out``; with ``resume`` from its newest checkpoint.

    ``begin(config, dataset, step)`` is called once, after all checks: with the run's precision and fitted codec, and
    the updates that it resumes after. ``watch(step, record)`` is called after every update, with the log record if one
    was written; ``say(text)`` with warnings and progress. ``stop`` ends the run after the current update. Raises
    RunError (disk, checkpoint, divergence), DataError (data) and UsageError (a config that does not fit the data, or
    that differs from the resumed run in more than its length and what changes no result); on the last two nothing has
    been written.
    """
    out = Path(out)
    watch, say, stop = watch or (lambda step, record: None), say or (lambda text: None), stop or StopRequest()
    # 1. What can fail without touching the disk.
    device, parts = pick_device(config.training.device), segments(config)
    recorded = check_directory(config, out, resume)
    config = decide_precision(config, device, out)
    board_class = summary_writer() if config.log.tensorboard else None
    dataset = config.data.open("train")
    facts = recorded or DataFacts.of(dataset, config.codec)
    check_data(facts, dataset, out)
    config = replace(config, codec=facts.codec)
    config.check(facts.shape, facts.conditions)
    # 2. The state: of the newest checkpoint, of another run's weights, or fresh; then the directory.
    state, settings = State(config, facts, device), config.training
    offset = start(state, out)
    warnings = [*notes(config, facts.conditions.num_classes), *data_notes(config, facts)]
    if recorded is not None:
        warnings += length_note(read_config(out), config)
    write_run(config, facts, warnings, out)
    if state.step == settings.steps:
        return TrainResult(state.step)
    if begin is not None:
        begin(config, dataset, state.step)
    for warning in warnings:
        say(warning)
    # 3. Phase by phase.
    board = board_class and board_class(str(out / "tensorboard"), purge_step=state.step * settings.batch + 1)
    saver = Saver(state, parts, out, Previews(state, dataset, out / "previews", say))
    with RunLog(out, offset, state.step, board) as log, matmul_precision(settings.matmul_precision):
        for segment in parts:
            if state.step >= segment.last:
                continue  # trained before
            examples = start_phase(state, segment, dataset, out, say, stop)
            if examples is None or train_phase(state, segment, examples, saver, log, watch, stop):
                return TrainResult(state.step, stop.signal)
    return TrainResult(state.step)


def decide_precision(config: Config, device: torch.device, out: Path | None = None) -> Config:
    """Return the run with a precision: that of the run in ``out``, if there is one, or what `auto` means here."""
    training, objective = config.training, config.objective
    if training.precision != "auto":
        return config
    decided = "auto" if out is None or not (out / "config.json").exists() else read_config(out).training.precision
    if decided == "auto":
        low = has_bfloat16(device) and not objective.exact and not objective.uses_jvp
        decided = "bfloat16" if low else "float32"
    return replace(config, training=replace(training, precision=decided))


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Set torch's precision of float32 matrix products, which the whole process shares, within the block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def start(state: State, out: Path) -> int:
    """Restore the newest checkpoint, or load the weights of `init.run`; returns the log's length at that point."""
    config, checkpoints = state.config, checkpoint.listing(out / "checkpoints")
    offset = state.restore(checkpoints[-1][1]) if checkpoints else 0
    if not checkpoints and config.init.run is not None:
        state.initialise_from(read_trained(Path(config.init.run), config.init.weights))
    if state.step > config.training.steps:
        raise UsageError(
            f"training.images is {config.training.images}, and {out} has seen "
            f"{state.step * config.training.batch} already: request more, or choose another --out"
        )
    return offset


def start_phase(
    state: State, segment: Segment, dataset: Dataset, out: Path, say: MessageCallback, stop: StopRequest
) -> Examples | None:
    """Start or continue a phase; returns what it trains on, None when a signal came while pairs were generated.

    The checkpoint at a phase's end is saved before the teacher is updated, so that a resumed run updates it again.
    """
    if state.step == segment.first > 0:
        state.update_teacher()
    batch = state.config.training.batch
    if len(phases(state.config)) > 1:
        say(f"phase {segment.phase.name}: images {segment.first * batch:,} to {segment.last * batch:,}")
    data, coupling = DataExamples(dataset, state.facts.codec, state.facts.condition_codecs), state.config.coupling
    if segment.phase.pairs is not None:
        return make_pairs(state, data, segment.phase.pairs, out / "pairs", say=say, stop=stop)
    if not coupling.exchanges(dataset.conditions):
        return data
    return CoupledExamples(data, coupling, keys=state.keys, batch=batch, last=segment.last)


class Saver:
    """Saves a run's state at the configured images, at the ends of phases, by the clock, and when it stops."""

    def __init__(self, state: State, segments: Sequence[Segment], out: Path, previews: Previews) -> None:
        self.state, self.out, self.previews = state, out, previews
        self.ends = [segment.last for segment in segments]
        minutes = state.config.checkpoint.minutes
        self.interval = math.inf if minutes is None else 60 * minutes
        self.due = time.monotonic() + (math.inf if minutes is None else min(FIRST, self.interval))

    def after_update(self, segment: Segment, log: RunLog, stopping: bool, stop: StopRequest) -> None:
        """Save what is due after an update. ``stop`` ends a preview early. Raises RunError."""
        state, config, last = self.state, self.state.config, self.ends[-1]
        copies = config.ema.profile_every or config.checkpoint.every
        if config.ema.profiles and segment.last == last and self.is_multiple(state.step, copies) and state.updates:
            # before the checkpoint of this update: a run that is killed between the two stores them again
            checkpoint.save(self.out / "profiles", state.step, state.profiles())
        if not (stopping or self.scheduled(state.step) or time.monotonic() >= self.due):
            return
        checkpoints = self.out / "checkpoints"
        checkpoint.save(checkpoints, state.step, state.snapshot(log.sync()))
        checkpoint.prune(checkpoints, config.checkpoint, config.training.batch, self.scheduled, last)
        self.due = time.monotonic() + self.interval
        if not stopping:
            self.previews.draw(segment.phase.objective, stop)

    def scheduled(self, step: int) -> bool:
        """Return whether every run of this config has a checkpoint at this step."""
        return step in self.ends or self.is_multiple(step, self.state.config.checkpoint.every)

    def is_multiple(self, step: int, images: int) -> bool:
        """Return whether a step is a multiple of so many images, in whole updates."""
        return step % max(1, images // self.state.config.training.batch) == 0


def train_phase(
    state: State,
    segment: Segment,
    examples: Examples,
    saver: Saver,
    log: RunLog,
    watch: StepCallback,
    stop: StopRequest,
) -> bool:
    """Make the updates of a phase; returns whether a signal stopped the run before its end."""
    settings = state.config.training
    log_every = max(1, state.config.log.every // settings.batch)
    while state.step < segment.last:
        update(state, examples, segment)
        record, stopping = None, stop.signal is not None  # read once: a later signal waits for the next update
        power_of_two = state.step & (state.step - 1) == 0
        if state.step % log_every == 0 or (power_of_two and state.step < log_every) or state.step == segment.last:
            record = write_record(state, log, segment)
        saver.after_update(segment, log, stopping, stop)
        watch(state.step, record)
        if stopping and state.step < settings.steps:
            return True
    return False


def write_record(state: State, log: RunLog, segment: Segment) -> Record:
    """Write the window's record to the log and start a new window."""
    settings = state.config.training
    record = {
        "step": state.step,
        "images": state.step * settings.batch,
        "phase": segment.phase.name,
        **state.meter.record(),
        "lr": segment.learning_rate(state.step - 1, state.config.optimizer, settings.batch),
        "skipped": state.skipped,
    }
    log.write(record)
    state.meter.clear()
    return record
