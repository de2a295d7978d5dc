"""A trial is one run to train and to score.

Nothing is repeated: an unfinished run resumes from its newest checkpoint, a finished one is not trained again, and
scores in the run's `scores.json` are reused.
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
from anystep.evaluation.features.classifier import read_classifier
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

#: a score record of `evaluate`
Score = dict[str, Any]
SCORES = "scores.json"
#: in the run directory: the traceback of an unexpected error
FAILED = "failed.txt"


@dataclass(frozen=True)
class Trial:
    """A run, its directory, and how it is scored: ``num`` samples in each of ``steps``; ``metrics`` None: the usual."""

    config: Config
    run: Path
    steps: tuple[int, ...]
    num: int
    metrics: tuple[str, ...] | None = None
    guidance: float | None = None
    """Guidance scale W of the samples; None: as trained."""
    variant: str | None = None
    """Name of a method as published (`recipes.PAPER`) or without some of its parts (`recipes.PARTS`)."""
    classifier: Path | None = None
    """Weights of the classifier whose features `METRIC@classifier` compares."""

    @property
    def method(self) -> str:
        """Name of the method, or of its variant."""
        return self.variant or self.config.objective.name

    @property
    def seed(self) -> int:
        """Seed of the training run."""
        return self.config.training.seed


@dataclass(frozen=True)
class TrialEvent:
    """Progress of a trial: ``done`` of ``total`` images or network calls, a log record, a message, or its end."""

    doing: Literal["train", "score", "end"]
    done: int = 0
    total: int = 0
    record: Record | None = None
    text: str = ""


@dataclass(frozen=True)
class TrialResult:
    """A trial's scores, one per number of steps, or why it failed; neither if it was stopped or never started."""

    trial: Trial
    scores: tuple[Score, ...] = ()
    failed: str = ""


TrialCallback = Callable[[Trial, TrialEvent], None]


class StopError(Exception):
    """A signal stopped a trial, after what it needs to resume was saved."""


def attempt(trial: Trial, watch: TrialCallback, stop: StopRequest) -> TrialResult:
    """Train and score, as far as that is not done yet. An error is in the result.

    The traceback of an unexpected error is in the run directory until the next attempt.
    """
    started = time.monotonic()
    try:
        (trial.run / FAILED).unlink(missing_ok=True)
        if not finished(trial):
            train_trial(trial, watch, stop)
        result = TrialResult(trial, tuple(score_trial(trial, watch, stop)))
    except StopError:
        return TrialResult(trial)
    except (RunError, DataError, UsageError) as error:
        result = TrialResult(trial, failed=" ".join(str(error).split()))
    except Exception as error:  # of any kind: the other trials continue
        message = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
        try:
            write_text(trial.run / FAILED, traceback.format_exc())
            message += f" (traceback: {trial.run / FAILED})"
        except OSError:
            pass
        result = TrialResult(trial, failed=message)
    watch(trial, TrialEvent("end", text=result.failed or f"done in {time.monotonic() - started:.0f} s"))
    return result


def finished(trial: Trial) -> bool:
    """Return whether the run has a checkpoint at its end."""
    checkpoints = checkpoint.listing(trial.run / "checkpoints")
    return bool(checkpoints) and checkpoints[-1][0] >= trial.config.training.steps


def train_trial(trial: Trial, watch: TrialCallback, stop: StopRequest) -> None:
    """Train, or resume. Raises StopError after a signal, and what `train` raises."""
    batch, total = trial.config.training.batch, trial.config.training.steps * trial.config.training.batch
    seen = 0

    def on_step(step: int, record: Record | None) -> None:
        nonlocal seen
        seen = step * batch
        watch(trial, TrialEvent("train", seen, total, record))

    def on_message(text: str) -> None:
        watch(trial, TrialEvent("train", seen, total, text=text))

    if stop.signal is not None:
        raise StopError
    if train(trial.config, trial.run, resume=True, watch=on_step, say=on_message, stop=stop).stopped:
        raise StopError


def score_trial(trial: Trial, watch: TrialCallback, stop: StopRequest) -> list[Score]:
    """Return a score per number of steps; those missing in the run's `scores.json` are computed and added to it.

    Raises StopError after a signal, and what `load` and `evaluate` raise.
    """

    def progress(done: int, total: int) -> None:
        if stop.signal is not None:
            raise StopError
        watch(trial, TrialEvent("score", done, total))

    generator = load(trial.run, device=trial.config.training.device)
    scores = stored_scores(trial, generator)
    missing = [steps for steps in trial.steps if steps not in scores]
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
            classifier=trial.classifier,
            progress=progress,
        )
        keep_scores(trial.run / SCORES, new)
        scores |= {score["steps"]: score for score in new}
    return [scores[steps] for steps in trial.steps]


def stored_scores(trial: Trial, generator: Generator) -> dict[int, Score]:
    """Return the newest scores in the run's `scores.json` that were computed as the trial requires, by steps."""
    path = trial.run / SCORES
    stored: list[Score] = read_scores(path) if path.exists() else []
    facts = DataFacts.read(trial.run)
    metrics = choose_metrics(trial.metrics, facts.codec.looks)
    weights = set() if trial.classifier is None else {read_classifier(trial.classifier)[0].weights}
    found = {}
    for steps in trial.steps:
        plan = generator.plan(steps, guidance=trial.guidance)
        required = {
            "num": trial.num,
            "seed": 0,
            "reference_hash": facts.fingerprint,
            "schedule": describe_schedule(plan.schedule),
            "guidance": describe_guidance(generator.objective, trial.guidance, plan.guidance),
            "ema": generator.ema,
            "device": describe_device(generator.device),
        }
        for score in stored:
            same_run = (score.get("run"), score.get("steps")) == (generator.source, steps)
            protocol = score.get("protocol") or {}
            same_weights = weights <= {each.get("features_version") for each in protocol.get("metrics", {}).values()}
            same = same_run and same_weights and required.items() <= protocol.items()
            if same and all(name in score for name in metrics):
                found[steps] = score
    return found


def stored_result(trial: Trial) -> TrialResult:
    """Return the stored scores of a finished run; none if it is not finished, or cannot be read."""
    try:
        scores = stored_scores(trial, load(trial.run, device=trial.config.training.device)) if finished(trial) else {}
    except (RunError, ValueError):  # an attempt reports why
        scores = {}
    return TrialResult(trial, tuple(scores.values()))
