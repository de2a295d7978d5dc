"""A trial is one run to train and to score. Many are made one after another, or some at a time in their own processes.

What is there already is not made again: a run goes on from its newest checkpoint, a finished one is left alone, and a
score that is kept in the run is not drawn again.
"""

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path
from threading import Thread
from typing import Any, Literal

import torch

from anystep.data import DataError
from anystep.evaluation.generator import Generator
from anystep.evaluation.protocol import describe_device, describe_guidance, describe_schedule
from anystep.evaluation.scores import keep_scores, read_scores
from anystep.evaluation.sweep import IMAGE_METRICS, VECTOR_METRICS, evaluate
from anystep.interchange.run import load_run
from anystep.training import checkpoint
from anystep.training.config import Config
from anystep.training.errors import RunError
from anystep.training.facts import DataFacts
from anystep.training.signals import STOPPING, StopRequest
from anystep.training.trainer import Record, train

Row = dict[str, Any]
SCORES = "scores.json"
#: seconds between looks at what other processes say
POLL = 0.2


@dataclass(frozen=True)
class Trial:
    """A run, where it is, and how it is scored: ``num`` samples at each of ``steps``; ``metrics`` None: the usual."""

    config: Config
    run: Path
    steps: tuple[int, ...]
    num: int
    metrics: tuple[str, ...] | None = None

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.config.objective.name

    @property
    def seed(self) -> int:
        """Seed of the training run."""
        return self.config.training.seed


@dataclass(frozen=True)
class News:
    """What a trial tells: ``done`` of ``total`` images, or network calls; a log record; words; that it has ended."""

    doing: Literal["train", "score", "end"]
    done: int = 0
    total: int = 0
    record: Record | None = None
    text: str = ""


@dataclass(frozen=True)
class Result:
    """What became of a trial: a row a budget, or why it failed; neither when it was stopped, or not begun."""

    rows: tuple[Row, ...] = ()
    failed: str = ""


Watch = Callable[[Trial, News], None]


class StopError(Exception):
    """A signal was heard; what had to be kept is kept."""


def attempt(trial: Trial, watch: Watch, stop: StopRequest) -> Result:
    """Train, unless it is trained, and score, unless it is scored. What goes wrong is in the result."""
    begun = time.monotonic()
    try:
        if not finished(trial):
            train_trial(trial, watch, stop)
        result = Result(tuple(score(trial, watch, stop)))
    except StopError:
        return Result()
    except (RunError, DataError, ValueError) as error:
        result = Result(failed=" ".join(str(error).split()))
    except Exception as error:  # of whatever kind: the other trials go on
        first = (str(error) or "no message").splitlines()[0]
        result = Result(failed=f"{type(error).__name__}: {first}")
    watch(trial, News("end", text=result.failed or f"done in {time.monotonic() - begun:.0f} s"))
    return result


def finished(trial: Trial) -> bool:
    """Tell whether the run has a checkpoint at its end."""
    every = checkpoint.listing(trial.run / "checkpoints")
    return bool(every) and every[-1][0] >= trial.config.training.steps


def train_trial(trial: Trial, watch: Watch, stop: StopRequest) -> None:
    """Train, or go on. Raises StopError when a signal came, and what `train` raises."""
    batch, total = trial.config.training.batch, trial.config.training.steps * trial.config.training.batch
    seen = 0

    def watched(step: int, record: Record | None) -> None:
        nonlocal seen
        seen = step * batch
        watch(trial, News("train", seen, total, record))

    def say(text: str) -> None:
        watch(trial, News("train", seen, total, text=text))

    if (
        stop.signal is not None
        or train(trial.config, trial.run, resume=True, watch=watched, say=say, stop=stop).stopped
    ):
        raise StopError


def score(trial: Trial, watch: Watch, stop: StopRequest) -> list[Row]:
    """Return a row a budget; what the run's `scores.json` does not answer is drawn and added to it.

    Raises StopError when a signal came, and what `load_run` and `evaluate` raise.
    """

    def progress(done: int, total: int) -> None:
        if stop.signal is not None:
            raise StopError
        watch(trial, News("score", done, total))

    generator = load_run(trial.run, device=trial.config.training.device)
    rows = answers(trial, generator)
    missing = [steps for steps, row in rows.items() if row is None]
    if missing:
        source, heldout = trial.config.data, None
        with suppress(DataError):
            heldout = source.open("heldout")
        new = evaluate(
            generator,
            source.open("train"),
            steps=missing,
            num=trial.num,
            metrics=trial.metrics,
            heldout=heldout,
            progress=progress,
        )
        keep_scores(trial.run / SCORES, new)
        rows |= {row["steps"]: row for row in new}
    return [row for row in rows.values() if row is not None]


def answers(trial: Trial, generator: Generator) -> dict[int, Row | None]:
    """Return, for each budget, the newest row kept in the run that answers the same question, or None."""
    kept = trial.run / SCORES
    there: list[Row] = read_scores(kept) if kept.exists() else []
    facts = DataFacts.read(trial.run)
    metrics = trial.metrics or (IMAGE_METRICS if facts.kind == "image" else VECTOR_METRICS)

    def answer(steps: int) -> Row | None:
        plan = generator.plan(steps)
        asked = {
            "num": trial.num,
            "seed": 0,
            "reference_hash": facts.fingerprint,
            "schedule": describe_schedule(plan.schedule),
            "guidance": describe_guidance(generator.objective, None, plan.guidance),
            "ema": generator.ema,
            "device": describe_device(generator.device),
        }
        for row in reversed(there):
            protocol = row.get("protocol") or {}
            same = (row.get("run"), row.get("steps")) == (generator.source, steps)
            alike = {name: protocol.get(name) for name in asked} == asked
            if same and alike and all(name in row for name in metrics):
                return row
        return None

    return {steps: answer(steps) for steps in trial.steps}


def known(trial: Trial) -> Result | None:
    """Return the result of a trial that is trained and scored already, else None."""
    if not finished(trial):
        return None
    try:
        rows = answers(trial, load_run(trial.run, device=trial.config.training.device))
    except (RunError, ValueError):
        return None  # an attempt will tell
    found = tuple(row for row in rows.values() if row is not None)
    return Result(found) if len(found) == len(rows) else None


def attempt_all(trials: Sequence[Trial], watch: Watch, stop: StopRequest, jobs: int = 1) -> list[Result]:
    """Make all trials, ``jobs`` at a time; the cores are shared out among them. Results are in the trials' order.

    One at a time they are made here, several in a process each. After a signal each saves a checkpoint, and no more
    begin; when this process dies, the others save a checkpoint and end.
    """
    results = [known(trial) or Result() for trial in trials]
    left = [number for number, result in enumerate(results) if not result.rows]
    if jobs > 1 and len(left) > 1:
        _in_processes(trials, left, results, watch, stop, jobs)
        return results
    for number in left:
        if stop.signal is None:
            results[number] = attempt(trials[number], watch, stop)
    return results


def _in_processes(
    trials: Sequence[Trial], left: Sequence[int], results: list[Result], watch: Watch, stop: StopRequest, jobs: int
) -> None:
    """Make the trials whose numbers are ``left``, each in a process of its own, and put down their results."""
    context = get_context("spawn")
    heard = context.RawValue("i", 0)
    threads = max(1, torch.get_num_threads() // jobs)
    waiting = deque(left)
    running: dict[Any, tuple[int, Any]] = {}
    try:
        while running or (waiting and stop.signal is None):
            heard.value = stop.signal or 0
            while waiting and len(running) < jobs and stop.signal is None:
                number = waiting.popleft()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(trials[number], threads, heard, theirs), daemon=True)
                with _unheard():
                    process.start()
                theirs.close()
                running[ours] = (number, process)
            pipes: list[Any] = list(running)
            ready: list[Any] = wait(pipes, timeout=POLL)
            for pipe in ready:
                number, process = running[pipe]
                message: News | Result
                try:
                    message = pipe.recv()
                except EOFError:
                    process.join()
                    message = Result(failed=f"its process ended with exit code {process.exitcode}")
                if isinstance(message, News):
                    watch(trials[number], message)
                else:
                    results[number] = message
                    del running[pipe]
                    process.join()
    finally:
        for _, process in running.values():
            process.kill()  # checkpoints appear whole or not at all


@contextmanager
def _unheard() -> Iterator[None]:
    """Keep signals waiting. A process that is started here never hears any: Ctrl-C reaches all of a terminal's."""
    ensure_running()  # multiprocessing's own process: starting it would let signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(trial: Trial, threads: int, heard: Any, pipe: "Connection[Any, Any]") -> None:
    """Make one trial in a process of its own; signals come from the first process, in ``heard``."""
    stop, parent, told = StopRequest(), os.getppid(), 0.0

    def listen() -> None:
        while stop.signal is None:
            time.sleep(POLL)
            if heard.value or os.getppid() != parent:
                stop.signal = signal.Signals(heard.value or signal.SIGTERM)

    def watch(trial: Trial, news: News) -> None:
        nonlocal told
        if news.record or news.text or time.monotonic() > told + POLL:
            told = time.monotonic()
            with suppress(BrokenPipeError):  # nobody is left to tell: the run ends with a checkpoint
                pipe.send(news)

    Thread(target=listen, daemon=True).start()
    torch.set_num_threads(threads)
    result = attempt(trial, watch, stop)
    with suppress(BrokenPipeError):
        pipe.send(result)
