"""What came of a comparison: scores and what they cost, means over seeds, failures, samples."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystep.comparison.trials import Result, Row, Trial
from anystep.evaluation.reference import conditioned_like_source
from anystep.evaluation.scores import measured
from anystep.model.load import load
from anystep.objectives import Objective
from anystep.run.config import Config
from anystep.run.plan import forward_units

#: most steps that Table 1 of Frans et al. 2024 puts in parentheses for diffusion and flow matching (128, 4 and 1)
FEW = 4


@dataclass(frozen=True)
class Comparison:
    """What was compared, at a cost of ``budget`` network forward units each, and what came of it."""

    base: Config
    budget: int
    trials: Sequence[Trial]
    results: Sequence[Result]

    @property
    def complete(self) -> bool:
        """Whether every trial has ended, well or not: none was stopped, or never begun."""
        return all(result.rows or result.failed for result in self.results)

    def scores(self) -> list[Row]:
        """Return the rows of `evaluate`, with the seed, what the run cost, its images and its seconds of training."""
        rows = []
        for trial, result in zip(self.trials, self.results, strict=True):
            cost = {
                "forward_units": forward_units(trial.config),
                "images": trial.config.training.images,
                "train_seconds": train_seconds(trial.run),
            }
            for row in result.rows:
                who = {"method": trial.method, "seed": trial.seed}  # first in order; evaluate does not know of parts
                rows.append(who | row | who | cost)
        return rows

    def failures(self) -> list[Row]:
        """Return method, seed, steps (None: all) and why, of each run and each score that came to nothing."""
        found: list[Row] = []
        for trial, result in zip(self.trials, self.results, strict=True):
            who = {"method": trial.method, "seed": trial.seed}
            if result.failed:
                found.append(who | {"steps": None, "why": result.failed})
            for row in result.rows:
                bad = [note for note in row["notes"] if "not finite" in note]
                found += [who | {"steps": row["steps"], "why": note} for note in bad]
        return found

    def summary(self) -> list[Row]:
        """Return, for each method and budget, the mean and the spread (largest minus smallest) of each metric.

        ``guidance`` is the scale W that the network was told, None as trained; ``seeds`` are those with a value of the
        first metric; ``floor`` has the floors of distances; ``caution`` says why the objective is not intended to
        support the budget, or is None. A method that failed has its rows, without values.
        """
        scores, rows = self.scores(), []
        names = measured(scores)
        floors = {name: row[f"{name}_floor"] for row in scores for name in names if f"{name}_floor" in row}
        for trial in {trial.method: trial for trial in self.trials}.values():
            for steps in trial.steps:
                same = [row for row in scores if (row["method"], row["steps"]) == (trial.method, steps)]
                values = {name: [row[name] for row in same if row.get(name) is not None] for name in names}
                rows.append(
                    {
                        "method": trial.method,
                        "steps": steps,
                        "guidance": trial.guidance,
                        "seeds": [row["seed"] for row in same if names and row.get(names[0]) is not None],
                        "mean": {name: mean(found) if found else None for name, found in values.items()},
                        "spread": {name: max(found) - min(found) if found else None for name, found in values.items()},
                        "floor": floors,
                        "caution": caution(trial.config.objective, steps, trial.guidance),
                        "forward_units": forward_units(trial.config),
                    }
                )
        return rows


def caution(objective: Objective, steps: int, guidance: float | None = None) -> str | None:
    """Return why Table 1 of Frans et al. 2024 would have this budget in parentheses, or None, of samples at this
    guidance scale.

    Parentheses are "evaluation under conditions that the objective is not intended to support": what the objective says
    itself, and few steps of one that learns nothing but the velocity at each time.
    """
    if steps <= FEW and objective.tags == ("flow",) and len(objective.phases()) == 1:
        return f"{objective.name.replace('_', ' ')} learns velocities and no steps: the paper marks budgets 4 and 1"
    return objective.caution(objective.schedule(steps), guidance)


def train_seconds(run: Path) -> float | None:
    """Return the seconds that the run was trained for, over all the times it went on; None without a record.

    Lines of one time share ``begun``. Older ones lack it: there the next time shows by seconds that fall.
    """
    try:
        lines = [json.loads(line) for line in (run / "timing.jsonl").read_text().splitlines()]
    except (OSError, ValueError):
        return None
    ends: dict[Any, float] = {}
    older, before = 0, 0.0
    for line in lines:
        older += line["seconds"] < before
        before = line["seconds"]
        ends[line.get("begun", older)] = before
    return round(sum(ends.values()), 3) if ends else None


def same_noise(comparison: Comparison, num: int) -> dict[str, dict[int, NDArray[Any]]]:
    """Return samples 0 ... num - 1 of each method's first seed that was scored: ``[method][steps]``, decoded."""
    drawn: dict[str, dict[int, NDArray[Any]]] = {}
    for trial, result in zip(comparison.trials, comparison.results, strict=True):
        finite = [row["steps"] for row in result.rows if not any("not finite" in note for note in row["notes"])]
        if trial.method in drawn or not finite:
            continue
        generator = conditioned_like_source(load(trial.run, device=trial.config.training.device), trial.config.data)
        x = {n: generator.generate(steps=n, seed=0, index=range(num), guidance=trial.guidance) for n in finite}
        drawn[trial.method] = {steps: np.asarray(generator.decode(part)) for steps, part in x.items()}
    return drawn
