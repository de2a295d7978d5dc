"""The training loop: phases, updates, records, checkpoints. What an update does is in `update.py`.

A run directory holds `config.json` (complete, re-runnable), `run.json` (facts of the data, versions), `log.jsonl`,
`timing.jsonl`, `checkpoints/` and, with `ema.profiles`, `profiles/`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from signal import Signals
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anystep.core.device import pick_device
from anystep.core.errors import UsageError
from anystep.data import Dataset, batch_indices
from anystep.run import checkpoint
from anystep.run.config import Config
from anystep.run.directory import check_directory, data_facts, write_run
from anystep.run.log import RunLog, summary_writer
from anystep.run.plan import Segment, phases, segments
from anystep.run.weights import read_trained
from anystep.training.coupling import CoupledExamples
from anystep.training.examples import DataExamples, Examples
from anystep.training.notes import data_notes, notes
from anystep.training.pairs import make_pairs
from anystep.training.signals import StopRequest
from anystep.training.state import State
from anystep.training.update import update

Record = dict[str, Any]
Watch = Callable[[int, Record | None], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: after ``step`` updates, ``stopped`` by a signal or None when it is complete."""

    step: int
    stopped: Signals | None = None


def train(
    config: Config,
    out: str | Path,
    *,
    resume: bool = False,
    watch: Watch | None = None,
    say: Say | None = None,
    stop: StopRequest | None = None,
) -> Outcome:
    """Train as ``config`` says into the run directory ``out``; with ``resume`` go on from its newest checkpoint.

    ``watch(step, record)`` is called after every update, with the log record where one was written; ``say(text)`` with
    what else a person would want to know. ``stop`` ends the run after the update in flight. Raises RunError (disk,
    checkpoint, divergence), DataError (data) and ValueError (a config that does not fit the data, or differs from the
    run's in more than its length and device); on the last two nothing has been written.
    """
    out = Path(out)
    watch, say, stop = watch or (lambda step, record: None), say or (lambda text: None), stop or StopRequest()
    # 1. What can fail without touching the disk.
    device, parts = pick_device(config.training.device), segments(config)
    check_directory(config, out, resume)
    writer = summary_writer() if config.log.tensorboard else None
    dataset = config.data.open("train")
    facts = data_facts(config, dataset, out)
    config = replace(config, codec=facts.codec)
    config.check(facts.conditions)
    # 2. The state: of the newest checkpoint, of another run's weights, or fresh; then the directory.
    state, settings = State(config, facts, device), config.training
    offset = start(state, out)
    told = [*notes(config, facts.num_classes), *data_notes(config, facts)]
    write_run(config, facts, told, out)
    if state.step == settings.steps:
        return Outcome(state.step)
    for note in told:
        say(note)
    # 3. Phase by phase.
    board = writer and writer(str(out / "tensorboard"), purge_step=state.step * settings.batch + 1)
    log = RunLog(out, offset, state.step, board)
    log_every = max(1, config.log.every // settings.batch)
    save_every = max(1, config.checkpoint.every // settings.batch)
    copy_every = max(1, (config.ema.profile_every or config.checkpoint.every) // settings.batch)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(settings.matmul_precision)
    try:
        for part in parts:
            if state.step >= part.last:
                continue  # trained before
            examples = enter(state, part, dataset, out, say, stop)
            if examples is None:
                return Outcome(state.step, stop.signal)
            for index in batches(len(examples), state, part.last):
                update(state, examples, index, part)
                record, asked = None, stop.signal  # read once: a later signal waits for the next update
                if state.step % log_every == 0 or state.step == part.last:
                    record = write_record(state, log, part)
                if config.ema.profiles and part is parts[-1] and state.step % copy_every == 0 and state.updates:
                    # before the checkpoint of this update: a run that is killed between the two stores them again
                    checkpoint.save(out / "profiles", state.step, state.profiles())
                if asked or state.step % save_every == 0 or state.step == part.last:
                    checkpoint.save(out / "checkpoints", state.step, state.snapshot(log.sync()))
                    checkpoint.prune(out / "checkpoints", config.checkpoint, settings.batch)
                watch(state.step, record)
                if asked and state.step < settings.steps:
                    return Outcome(state.step, asked)
    finally:
        torch.set_float32_matmul_precision(precision)  # the whole process has one: it is the caller's again
        log.close()
    return Outcome(state.step)


def enter(state: State, part: Segment, dataset: Dataset, out: Path, say: Say, stop: StopRequest) -> Examples | None:
    """Begin a phase, or go on with it; returns what it trains on, None when a signal came while pairs were made.

    The checkpoint at a phase's end was written before the hand-over, so that a resumed run makes it again.
    """
    if state.step == part.first > 0:
        state.hand_over()
    batch = state.config.training.batch
    if len(phases(state.config)) > 1:
        say(f"phase {part.phase.name}: images {part.first * batch:,} to {part.last * batch:,}")
    data, coupling = DataExamples(dataset, state.facts.codec, state.facts.condition_codecs), state.config.coupling
    if part.phase.pairs is None and coupling.batches == 0:
        return data
    if part.phase.pairs is None:
        return CoupledExamples(data, coupling, keys=state.keys, batch=batch, last=part.last)
    return make_pairs(state, data, part.phase.pairs, out / "pairs", say=say, stop=lambda: stop.signal is not None)


def batches(rows: int, state: State, end: int) -> Iterator[NDArray[np.int64]]:
    """Yield the row numbers of each update's global batch, until update ``end``: a function of (keys, step)."""
    for step in range(state.step, end):
        yield batch_indices(rows, state.config.training.batch, step, state.keys)


def start(state: State, out: Path) -> int:
    """Restore the newest checkpoint, or take the weights of `init.run`; returns the log's length at that point."""
    config, every = state.config, checkpoint.listing(out / "checkpoints")
    offset = state.restore(every[-1][1]) if every else 0
    if not every and config.init.run is not None:
        state.begin_with(read_trained(Path(config.init.run), config.init.weights))
    if state.step > config.training.steps:
        raise UsageError(
            f"training.images is {config.training.images}, and {out} has seen "
            f"{state.step * config.training.batch} already: request more, or choose another --out"
        )
    return offset


def write_record(state: State, log: RunLog, part: Segment) -> Record:
    """Write the window's record to the log and start a new window."""
    settings = state.config.training
    record = {
        "step": state.step,
        "images": state.step * settings.batch,
        "phase": part.phase.name,
        **state.meter.record(),
        "lr": part.learning_rate(state.step - 1, state.config.optimizer, settings.batch),
        "skipped": state.skipped,
    }
    log.write(record)
    state.meter.clear()
    return record
