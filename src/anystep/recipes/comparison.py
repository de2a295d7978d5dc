"""Every method on one's own data at equal compute, as in P1's Table 1. Compute is counted in network forward units."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anystep.evaluation.sweep import METRICS
from anystep.interchange.run import load_run
from anystep.objectives import OBJECTIVES
from anystep.recipes import with_method
from anystep.recipes.trials import Result, Row, Trial, Watch, attempt_all
from anystep.training.config import Config
from anystep.training.errors import RunError, UsageError
from anystep.training.facts import DataFacts, read_config
from anystep.training.phases import forward_units, segments
from anystep.training.signals import StopRequest
from anystep.training.trainer import check_facts, options, pick_device

STEPS = (1, 2, 4, 8, 32, 128)
#: fewest samples that precision and recall (3 neighbours) can be told from
FEWEST = 4


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
                first = {"method": row["method"], "seed": trial.seed}
                rows.append(first | row | cost)
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

        ``seeds`` are those with a value of the first metric; ``caution`` says why the budget is not what the method is
        for, or is None. A method that failed has its rows, without values.
        """
        scores, rows = self.scores(), []
        names = [name for name in METRICS if any(name in row for row in scores)]
        for trial in {trial.method: trial for trial in self.trials}.values():
            for steps in trial.steps:
                same = [row for row in scores if (row["method"], row["steps"]) == (trial.method, steps)]
                values = {name: [row[name] for row in same if row.get(name) is not None] for name in names}
                objective = trial.config.objective
                rows.append(
                    {
                        "method": trial.method,
                        "steps": steps,
                        "seeds": [row["seed"] for row in same if names and row.get(names[0]) is not None],
                        "mean": {name: mean(found) if found else None for name, found in values.items()},
                        "spread": {name: max(found) - min(found) if found else None for name, found in values.items()},
                        "caution": objective.caution(objective.schedule(steps), None),
                        "forward_units": forward_units(trial.config),
                    }
                )
        return rows


def compare(
    base: Config,
    out: Path,
    *,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    steps: Sequence[int] = STEPS,
    num: int = 2048,
    metrics: Sequence[str] | None = None,
    jobs: int = 1,
    watch: Watch | None = None,
    stop: StopRequest | None = None,
) -> Comparison:
    """Train ``methods`` (None: all) at the cost of ``base`` into ``out``/METHOD-seedK, and score them at ``steps``.

    Each method has ``base``'s data, network size and optimizer, and the family's choices; ``base``'s own method its own
    options. What is trained or scored already is not made again. ``jobs`` runs are made at a time, in processes that
    share the cores. A run that fails leaves the others. Raises, before anything is trained, ValueError for what cannot
    be compared, RunError for run directories that hold something else, DataError.
    """
    trials = plan(base, out, methods=methods, seeds=seeds, steps=steps, num=num, metrics=metrics)
    check(trials)
    results = attempt_all(trials, watch or (lambda trial, news: None), stop or StopRequest(), jobs)
    return Comparison(base, forward_units(base), trials, results)


def plan(
    base: Config,
    out: Path,
    *,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    steps: Sequence[int] = STEPS,
    num: int = 2048,
    metrics: Sequence[str] | None = None,
) -> list[Trial]:
    """Return the trials, all methods of a seed before the next seed. Raises UsageError."""
    names = named("methods", OBJECTIVES if methods is None else methods, OBJECTIVES)
    chosen = None if metrics is None else tuple(named("metrics", metrics, METRICS))
    for what, values, least in (("steps", steps, 1), ("seeds", seeds, 0), ("num", [num], FEWEST)):
        if not values or min(values) < least:
            raise UsageError(f"{what} must be at least {least}, got {min(values) if values else 'none'}")
    configs = {}
    for name in names:
        try:
            config = base if name == base.objective.name else with_method(base, name)
            segments(config)
            for budget in steps:
                config.objective.schedule(budget)
        except ValueError as error:
            raise UsageError(f"{name}: {error}\nor leave {name} out of the methods") from error
        configs[name] = config.located()
    return [
        Trial(
            replace(config, training=replace(config.training, seed=seed)),
            out / f"{name}-seed{seed}",
            tuple(sorted(set(steps))),
            num,
            chosen,
        )
        for seed in dict.fromkeys(seeds)
        for name, config in configs.items()
    ]


def named(what: str, asked: Sequence[str] | Any, known: Sequence[str] | Any) -> list[str]:
    """Return the names, each once. Raises UsageError that offers the nearest for one that is not known, or none."""
    for name in asked:
        if name not in known:
            near = get_close_matches(name, known, n=2)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise UsageError(f"{what} must be among {', '.join(known)}, got {name!r}{hint}")
    if not asked:
        raise UsageError(f"{what} must name at least one of {', '.join(known)}, got none")
    return list(dict.fromkeys(asked))


def check(trials: Sequence[Trial]) -> None:
    """Raise, before anything is trained, what would otherwise come up hours later. Writes nothing.

    ValueError for methods, a network or metrics that do not fit the data, UsageError and RunError for a run directory
    that holds something else, DataError.
    """
    config, metrics = trials[0].config, trials[0].metrics or ()
    pick_device(config.training.device)
    dataset = config.data.open("train")
    facts = DataFacts.of(dataset)
    if "accuracy" in metrics and facts.num_classes is None:
        raise UsageError("accuracy needs classes, and this data has none: leave it out of the metrics")
    with torch.random.fork_rng(devices=[]):
        config.network.build(facts.shape, facts.num_classes, config.objective.M)
    for trial in trials:
        trial.config.objective.check(facts.num_classes)
        check_place(trial, facts)


def check_place(trial: Trial, facts: DataFacts) -> None:
    """Raise UsageError or RunError unless the run directory is free, or holds this very run on this very data."""
    run = trial.run
    if (run / "config.json").exists():
        stored, asked = options(read_config(run)), options(trial.config)
        for name, value in asked.items():
            if name != "training.device" and value != stored.get(name):
                raise UsageError(
                    f"{run} holds a run with {name} {stored.get(name)}, not {value}: "
                    "give another --out, or delete that run to train it anew"
                )
        if (run / "run.json").exists():
            check_facts(DataFacts.read(run), facts, run)
    elif run.exists() and (not run.is_dir() or any(p.name != "run.json" and p.name[0] != "." for p in run.iterdir())):
        raise RunError(f"{run} is in the way and holds no run: give another --out")


def train_seconds(run: Path) -> float | None:
    """Return the seconds that the run was trained for, over all the times it went on; None without a record."""
    try:
        lines = [json.loads(line) for line in (run / "timing.jsonl").read_text().splitlines()]
    except (OSError, ValueError):
        return None
    pairs = zip(lines, [*lines[1:], {"seconds": 0.0}], strict=True)
    ends = [line["seconds"] for line, after in pairs if after["seconds"] <= line["seconds"]]
    return round(sum(ends), 3) if ends else None


def same_noise(comparison: Comparison, num: int) -> dict[str, dict[int, NDArray[Any]]]:
    """Return samples 0 ... num - 1 of each method's first seed that was scored: ``[method][steps]``, decoded."""
    drawn: dict[str, dict[int, NDArray[Any]]] = {}
    for trial, result in zip(comparison.trials, comparison.results, strict=True):
        finite = [row["steps"] for row in result.rows if not any("not finite" in note for note in row["notes"])]
        if trial.method in drawn or not finite:
            continue
        generator = load_run(trial.run, device=trial.config.training.device)
        x = {steps: generator.generate(steps=steps, seed=0, index=range(num)) for steps in finite}
        drawn[trial.method] = {steps: np.asarray(generator.decode(part)) for steps, part in x.items()}
    return drawn
