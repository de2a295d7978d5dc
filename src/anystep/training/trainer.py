"""The training loop. Everything it does in an update is on these two screens; what it is made of is in the other files.

A run directory holds `config.json` (complete, re-runnable), `run.json` (facts of the data, versions), `log.jsonl`,
`timing.jsonl`, `checkpoints/` and, with `ema.profiles`, `profiles/`.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from signal import Signals
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from anystep.core import files
from anystep.core.device import pick_device
from anystep.core.errors import RunError, reason
from anystep.data import Dataset, batch_indices
from anystep.objectives import Batch, Draw, Losses
from anystep.run import checkpoint
from anystep.run.config import Config, to_json
from anystep.run.directory import check_data, check_unchanged
from anystep.run.facts import DataFacts, read_config
from anystep.run.log import RunLog, summary_writer
from anystep.run.plan import Segment, phases, segments
from anystep.run.weights import read_trained
from anystep.training.coupling import CoupledExamples
from anystep.training.examples import DataExamples, Examples
from anystep.training.notes import data_notes, notes
from anystep.training.optimizer import learning_rate
from anystep.training.pairs import make_pairs
from anystep.training.signals import StopRequest
from anystep.training.state import State

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
    out: Path,
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
    device = pick_device(config.training.device)
    parts = segments(config)
    if resume and (out / "config.json").exists():
        check_unchanged(read_config(out), config, out)
    writer = summary_writer() if config.log.tensorboard else None  # what may fail comes before what is written
    dataset = config.data.open("train")
    facts = data_facts(config, dataset, out, resume)
    config = replace(config, codec=facts.codec.unfitted())
    config.objective.check(facts.num_classes)
    config.coupling.check(facts.num_classes)
    state = State(config, facts, device)
    offset = begin(state, facts, out, resume)
    settings = config.training
    if state.step == settings.steps:
        return Outcome(state.step)
    watch, say, stop = watch or (lambda step, record: None), say or (lambda text: None), stop or StopRequest()
    board = writer and writer(str(out / "tensorboard"), purge_step=state.step * settings.batch + 1)
    log = RunLog(out, offset, state.step, board)
    log_every = max(1, config.log.every // settings.batch)
    save_every = max(1, config.checkpoint.every // settings.batch)
    copy_every = max(1, (config.ema.profile_every or config.checkpoint.every) // settings.batch)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(settings.matmul_precision)
    for note in (*notes(config, facts.num_classes), *data_notes(config, facts)):
        say(note)
    try:
        for part in parts:
            if state.step >= part.last:
                continue  # trained before
            examples = enter(state, part, dataset, out, say, stop)
            if examples is None:
                return Outcome(state.step, stop.signal)
            for index in batches(len(examples), config, state.step, part.last):
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
    if part.phase.pairs is None:
        data, coupling = DataExamples(dataset, state.facts.codec), state.config.coupling
        if coupling.batches == 0:
            return data
        return CoupledExamples(data, coupling, seed=state.config.training.seed, batch=batch, last=part.last)
    return make_pairs(state, dataset, part.phase.pairs, out / "pairs", say=say, stop=lambda: stop.signal is not None)


def update(state: State, examples: Examples, index: NDArray[np.int64], part: Segment) -> None:
    """Make one update on the global batch of these rows: micro-batches, gradient, non-finite policy, step, averages."""
    config, settings = state.config, state.config.training
    rows, objective, progress = examples.read(index), part.phase.objective, part.progress(state.step)
    losses: list[Losses] = []
    if state.haar is not None:
        with state.autocast():
            micro = micro_batches(state, examples, rows, index)
            state.haar.begin(objective, state.networks, ((*given, progress) for given in micro))
    for batch, draw in micro_batches(state, examples, rows, index):
        with state.autocast():
            if state.haar is None:
                share = objective.loss(state.networks, batch, draw, progress)
            else:
                share = state.haar.rows(objective, state.networks, (batch, draw, progress))
        (share.rows.sum() / settings.batch).backward()  # type: ignore[no-untyped-call]
        losses.append(share)
    gradients = [p.grad for p in state.network.parameters() if p.grad is not None]
    norm = get_total_norm(gradients)
    if bool(torch.isfinite(norm)) and all(bool(torch.isfinite(share.rows).all()) for share in losses):
        if config.optimizer.clip_norm is not None:
            clip_grads_with_norm_(state.network.parameters(), config.optimizer.clip_norm, norm)
        state.apply(learning_rate(state.step, config.optimizer, settings.batch, part.first, part.last))
        state.meter.add(losses, float(norm))
        state.skipped_in_a_row = 0
    else:
        state.skipped += 1
        state.skipped_in_a_row += 1
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    if state.skipped_in_a_row >= settings.max_nonfinite:
        raise RunError(
            f"stopped at step {state.step}: loss or gradient not finite in {state.skipped_in_a_row} updates in a row; "
            "checkpoints saved before are good. Try a lower optimizer.lr, optimizer.clip_norm 1, or precision float32"
        )


def micro_batches(
    state: State, examples: Examples, rows: Any, index: NDArray[np.int64]
) -> Iterator[tuple[Batch, Draw]]:
    """Yield the parts that the global batch is computed in, each with its own rows of the update's draws."""
    settings = state.config.training
    size = settings.batch // settings.accumulate
    for first in range(0, settings.batch, size):
        draw = Draw(settings.seed, state.step, settings.batch, slice(first, first + size), state.device)
        yield examples.batch(rows, index, draw), draw


def batches(rows: int, config: Config, start: int, end: int) -> Iterator[NDArray[np.int64]]:
    """Yield the row numbers of each update's global batch, ``start`` ... ``end - 1``: a function of (seed, step)."""
    for step in range(start, end):
        yield batch_indices(rows, config.training.batch, step, config.training.seed)


def data_facts(config: Config, dataset: Dataset, out: Path, resume: bool) -> DataFacts:
    """Return the facts of the run's data: those that a resumed run has recorded, else with the codec fitted now.

    Raises RunError when the data has changed since the run began.
    """
    if not (resume and (out / "config.json").exists() and (out / "run.json").exists()):
        return DataFacts.of(dataset, config.codec)
    recorded = DataFacts.read(out)
    check_data(recorded, dataset, out)
    return recorded


def begin(state: State, facts: DataFacts, out: Path, resume: bool) -> int:
    """Prepare the run directory, or restore the newest checkpoint in it; returns the log's length at that point."""
    held = (out / "config.json").exists()
    if held and not resume:
        raise RunError(f"{out} already holds a run: continue it with --resume, or choose another --out")
    try:
        if not held and out.exists() and any(p.name != "run.json" and p.name[0] != "." for p in out.iterdir()):
            raise RunError(f"{out} is not empty and holds no run: choose another --out")
        every = checkpoint.listing(out / "checkpoints")
        offset = state.restore(every[-1][1]) if every else 0
        if not every and state.config.init.run is not None:
            state.begin_with(read_trained(Path(state.config.init.run), state.config.init.weights))
        if state.step > state.config.training.steps:
            raise ValueError(
                f"training.images is {state.config.training.images}, and {out} has seen "
                f"{state.step * state.config.training.batch} already: ask for more, or choose another --out"
            )
        out.mkdir(parents=True, exist_ok=True)
        if not (out / "run.json").exists() or DataFacts.read(out) != facts:  # a start that was killed may have left one
            told = [*notes(state.config, facts.num_classes), *data_notes(state.config, facts)]
            facts.write(out, version("anystep"), told)
        files.write_text(out / "config.json", json.dumps(to_json(state.config), indent=2) + "\n")
    except OSError as error:
        raise RunError(f"cannot write the run directory {out}: {reason(error)}") from error
    return offset


def write_record(state: State, log: RunLog, part: Segment) -> Record:
    """Write the window's record to the log and start a new window."""
    settings = state.config.training
    record = {
        "step": state.step,
        "images": state.step * settings.batch,
        "phase": part.phase.name,
        **state.meter.record(),
        "lr": learning_rate(state.step - 1, state.config.optimizer, settings.batch, part.first, part.last),
        "skipped": state.skipped,
    }
    log.write(record)
    state.meter.clear()
    return record
