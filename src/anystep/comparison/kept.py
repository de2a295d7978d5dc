"""What an earlier comparison in the same folder left: a later one shows it too, as far as it is still true."""

import json
from dataclasses import replace
from pathlib import Path

from anystep.comparison.compare import Choices, check_place, plan
from anystep.comparison.outcome import Comparison
from anystep.comparison.trials import Result, Row, Trial, answers, finished
from anystep.core.errors import RunError
from anystep.data import Dataset
from anystep.model.load import load
from anystep.run.config import Config

#: method, seed, steps and guidance of a score
Key = tuple[str, int, int, float]


def with_earlier(found: Comparison, out: Path, choices: Choices) -> tuple[Comparison, int]:
    """Return the comparison with the scores that ``out``/compare.json has besides, and how many of them are no more.

    They are read from the runs: a run counts that is what ``found``'s base would be trained to, finished, and scored
    as the others are (samples, metrics, reference, averages, device).
    """
    more = earlier(out / "compare.json") - keys(found)
    if not more:
        return found, 0
    dataset = found.base.data.open("train")
    steps = tuple(sorted({steps for _, _, steps, _ in more | keys(found)}))
    pairs = zip(found.trials, found.results, strict=True)
    made = {(trial.method, trial.seed): (replace(trial, steps=steps), result) for trial, result in pairs}
    for who in sorted({(method, seed) for method, seed, *_ in more}):
        trial, result = made.get(who) or (planned(found.base, out, choices, *who, steps), Result())
        if trial is not None and not result.failed:
            rows = kept(trial, dataset) | {row["steps"]: row for row in result.rows}
            if rows:
                made[who] = trial, Result(tuple(rows[n] for n in sorted(rows)))
    trials, results = zip(*made.values(), strict=True)
    used = {steps for _, _, steps, _ in keys(replace(found, trials=trials, results=results))}
    columns = tuple(sorted(used | set(found.trials[0].steps)))
    union = replace(found, trials=[replace(trial, steps=columns) for trial in trials], results=results)
    return union, len(more - keys(union))


def keys(comparison: Comparison) -> set[Key]:
    """Return what has a score."""
    pairs = zip(comparison.trials, comparison.results, strict=True)
    return {(trial.method, trial.seed, row["steps"], row["guidance"]) for trial, result in pairs for row in result.rows}


def earlier(path: Path) -> set[Key]:
    """Return what has a score in a compare.json; nothing where there is none, or a file of another kind."""
    try:
        rows = json.loads(path.read_text())["scores"]
        return {(row["method"], row["seed"], row["steps"], row["guidance"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def planned(base: Config, out: Path, choices: Choices, method: str, seed: int, steps: tuple[int, ...]) -> Trial | None:
    """Return the trial of a method and seed, or None where this comparison could not have it."""
    try:
        (trial,) = plan(base, out, replace(choices, methods=[method], without=(), seeds=[seed], steps=steps))
    except ValueError:
        return None
    return trial


def kept(trial: Trial, dataset: Dataset) -> dict[int, Row]:
    """Return the rows that the trial's run holds, by budget; nothing for a run that is another, or not finished."""
    try:
        check_place(trial, dataset)
        if not finished(trial):
            return {}
        rows = answers(trial, load(trial.run, device=trial.config.training.device))
    except (RunError, ValueError):
        return {}
    return {steps: row for steps, row in rows.items() if row is not None}
