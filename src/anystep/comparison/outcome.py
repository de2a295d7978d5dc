"""Results of a comparison: scores with their costs, means over seeds, failures, samples."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystep.comparison.trials import Score, TrialResult
from anystep.evaluation.reference import conditioned_like_source
from anystep.evaluation.scores import measured
from anystep.model.load import load
from anystep.objectives import Objective
from anystep.run.config import Config
from anystep.run.plan import forward_units


@dataclass(frozen=True)
class Comparison:
    """The results of trials that each cost about as many network forward passes as ``base``."""

    base: Config
    results: Sequence[TrialResult]

    @property
    def budget(self) -> int:
        """Network forward passes of ``base``."""
        return forward_units(self.base)

    @property
    def complete(self) -> bool:
        """Whether every trial has scores or has failed: none was stopped or never started."""
        return all(result.scores or result.failed for result in self.results)

    def scores(self) -> list[Score]:
        """Return the score records, with the run's seed, cost in forward passes, images and seconds of training."""
        scores = []
        for trial, result in ((result.trial, result) for result in self.results):
            cost = {
                "forward_units": forward_units(trial.config),
                "images": trial.config.training.images,
                "train_seconds": train_seconds(trial.run),
            }
            for score in result.scores:
                name = {"method": trial.method, "seed": trial.seed}  # first in order; `evaluate` has no ablations
                scores.append(name | score | name | cost)
        return scores

    def failures(self) -> list[Score]:
        """Return method, seed, steps (None: all) and why, of each failed run and each score without a value."""
        failures: list[Score] = []
        for result in self.results:
            name = {"method": result.trial.method, "seed": result.trial.seed}
            if result.failed:
                failures.append(name | {"steps": None, "why": result.failed})
            for score in result.scores:
                notes = [note for note in score["notes"] if "not finite" in note]
                failures += [name | {"steps": score["steps"], "why": note} for note in notes]
        return failures

    def summary(self) -> list[Score]:
        """Return, for each method and number of steps, the mean and spread (largest minus smallest) of each metric.

        ``guidance`` is the requested scale W, None as trained; ``seeds`` are those with a value of the first metric;
        ``floor`` and ``floor_deviation`` have the floors of distances and their deviations; ``caution`` is why the
        objective is not intended for that number of steps, or None. A method that failed has its rows, without values.
        """
        scores, rows = self.scores(), []
        names = measured(scores)
        floors, deviations = (
            {name: score[key] for score in scores for name in names if (key := f"{name}_{part}") in score}
            for part in ("floor", "floor_deviation")
        )
        columns = {score["steps"] for score in scores} | {n for result in self.results for n in result.trial.steps}
        for trial in {result.trial.method: result.trial for result in self.results}.values():
            for steps in sorted(columns):
                same = [score for score in scores if (score["method"], score["steps"]) == (trial.method, steps)]
                values = {name: [score[name] for score in same if score.get(name) is not None] for name in names}
                rows.append(
                    {
                        "method": trial.method,
                        "steps": steps,
                        "guidance": trial.guidance,
                        "seeds": [score["seed"] for score in same if names and score.get(names[0]) is not None],
                        "mean": {name: mean(found) if found else None for name, found in values.items()},
                        "spread": {name: max(found) - min(found) if found else None for name, found in values.items()},
                        "floor": floors,
                        "floor_deviation": deviations,
                        "caution": steps_caution(trial.config.objective, steps, trial.guidance),
                        "forward_units": forward_units(trial.config),
                    }
                )
        return rows


def steps_caution(objective: Objective, steps: int, guidance: float | None = None) -> str | None:
    """Return why a method is not intended for a number of steps and a guidance scale, or None.

    Table 1 of Frans et al. 2024 (128, 4 and 1 steps) has such scores in parentheses: those that the objective itself
    warns of, and 4 or fewer steps of an objective that learns only the velocity at each time.
    """
    if steps <= 4 and objective.tags == ("flow",) and len(objective.phases()) == 1:
        return f"{objective.name.replace('_', ' ')} learns velocities and no steps: the paper marks 4 steps and 1 step"
    return objective.caution(objective.schedule(steps), guidance)


def train_seconds(run: Path) -> float | None:
    """Return the seconds of training, summed over the processes that trained the run; None without `timing.jsonl`."""
    try:
        lines = [json.loads(line) for line in (run / "timing.jsonl").read_text().splitlines()]
    except (OSError, ValueError):
        return None
    seconds = {line.get("begun"): line["seconds"] for line in lines}  # one process: its last line
    return round(sum(seconds.values()), 3) if seconds else None


def same_noise(comparison: Comparison, num: int) -> dict[str, dict[int, NDArray[Any]]]:
    """Return decoded samples 0 ... num - 1 by method and steps, of each method's first seed with finite samples."""
    samples: dict[str, dict[int, NDArray[Any]]] = {}
    for result in comparison.results:
        trial, finite = result.trial, [s for s in result.scores if not any("not finite" in note for note in s["notes"])]
        steps = [score["steps"] for score in finite]
        if trial.method not in samples and steps:
            generator = conditioned_like_source(load(trial.run, device=trial.config.training.device), trial.config.data)
            x = {n: generator.generate(steps=n, seed=0, index=range(num), guidance=trial.guidance) for n in steps}
            samples[trial.method] = {n: np.asarray(generator.decode(part)) for n, part in x.items()}
    return samples
