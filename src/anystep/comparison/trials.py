"""A trial is one run to train and to score.

What is there already is not made again: a run goes on from its newest checkpoint, a finished one is left alone, and a
score that is kept in the run is not drawn again.
"""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from anystep.core.errors import DataError, RunError, UsageError
from anystep.core.files import write_text
from anystep.evaluation.evaluate import evaluate
from anystep.evaluation.metrics import choose_metrics
from anystep.evaluation.protocol import describe_device, describe_guidance, describe_schedule
from anystep.evaluation.reference import open_heldout
from anystep.evaluation.scores import keep_scores, read_scores
from anystep.model.generator import Generator
from anystep.model.load import load
from anystep.run import checkpoint
from anystep.run.config import Config
from anystep.run.facts import DataFacts
from anystep.training.signals import StopRequest
from anystep.training.trainer import Record, train

Row = dict[str, Any]
SCORES = "scores.json"
#: in the run directory: where it went wrong, for who wants to know
FAILED = "failed.txt"


@dataclass(frozen=True)
class Trial:
    """A run, where it is, and how it is scored: ``num`` samples at each of ``steps``; ``metrics`` None: the usual."""

    config: Config
    run: Path
    steps: tuple[int, ...]
    num: int
    metrics: tuple[str, ...] | None = None
    guidance: float | None = None
    """Guidance scale W of the samples; None: as trained."""
    part: str | None = None
    """Of an improved shortcut model that lacks the parts after it (`recipes.PARTS`)."""
    imports: tuple[str, ...] = ()
    """Modules that the config's own classes are in, for the process that makes the trial."""

    @property
    def method(self) -> str:
        """Name of the method, or of the part."""
        return self.part or self.config.objective.name

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
    """Train, unless it is trained, and score, unless it is scored. What goes wrong is in the result.

    The traceback of what was not foreseen is in the run directory until the next attempt.
    """
    begun = time.monotonic()
    try:
        (trial.run / FAILED).unlink(missing_ok=True)
        if not finished(trial):
            train_trial(trial, watch, stop)
        result = Result(tuple(score(trial, watch, stop)))
    except StopError:
        return Result()
    except (RunError, DataError, UsageError) as error:
        result = Result(failed=" ".join(str(error).split()))
    except Exception as error:  # of whatever kind: the other trials go on
        words = " ".join(str(error).split()) or "no message"
        result = Result(failed=f"{type(error).__name__}: {words}" + keep_traceback(trial.run / FAILED))
    watch(trial, News("end", text=result.failed or f"done in {time.monotonic() - begun:.0f} s"))
    return result


def keep_traceback(path: Path) -> str:
    """Write the traceback of the error at hand; returns where it is, in words, or nothing when that fails too."""
    try:
        write_text(path, traceback.format_exc())
    except OSError:
        return ""
    return f" (traceback: {path})"


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

    Raises StopError when a signal came, and what `load` and `evaluate` raise.
    """

    def progress(done: int, total: int) -> None:
        if stop.signal is not None:
            raise StopError
        watch(trial, News("score", done, total))

    generator = load(trial.run, device=trial.config.training.device)
    rows = answers(trial, generator)
    missing = [steps for steps, row in rows.items() if row is None]
    if missing:
        source = trial.config.data
        new = evaluate(
            generator,
            source.open("train"),
            steps=missing,
            num=trial.num,
            guidance=trial.guidance,
            metrics=trial.metrics,
            heldout=open_heldout(source),
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
    metrics = choose_metrics(trial.metrics, facts.codec.looks)

    def answer(steps: int) -> Row | None:
        plan = generator.plan(steps, guidance=trial.guidance)
        asked = {
            "num": trial.num,
            "seed": 0,
            "reference_hash": facts.fingerprint,
            "schedule": describe_schedule(plan.schedule),
            "guidance": describe_guidance(generator.objective, trial.guidance, plan.guidance),
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
        rows = answers(trial, load(trial.run, device=trial.config.training.device))
    except (RunError, ValueError):
        return None  # an attempt will tell
    found = tuple(row for row in rows.values() if row is not None)
    return Result(found) if len(found) == len(rows) else None
