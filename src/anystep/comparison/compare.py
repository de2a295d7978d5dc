"""Every method on your data at equal compute, as in Table 1 of Frans et al. 2024 (network forward passes)."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from anystep.comparison.outcome import Comparison
from anystep.comparison.processes import attempt_all
from anystep.comparison.trials import FAILED, Trial, TrialCallback, stored_result
from anystep.core.device import pick_device
from anystep.core.errors import RunError, UsageError, did_you_mean
from anystep.core.registry import split_commas
from anystep.data import Dataset
from anystep.evaluation.features.classifier import ClassifierSpace
from anystep.evaluation.metrics import METRICS, build_spaces, choose_metrics, find_metric
from anystep.flow.penalties import NoWeight
from anystep.objectives import OBJECTIVES
from anystep.recipes import PAPER, PARTS, with_method
from anystep.run.config import Config
from anystep.run.directory import FREE, check_data, difference
from anystep.run.facts import DataFacts, read_config
from anystep.run.plan import segments
from anystep.training.signals import StopRequest

STEPS = (1, 2, 4, 8, 32, 128)
#: everything that can be compared
NAMES = (*OBJECTIVES, *PAPER, *PARTS)


@dataclass(frozen=True)
class Choices:
    """What is compared, and how it is scored. Raises UsageError for values that cannot be."""

    methods: Sequence[str] | None = None
    """Methods, by spaces or commas; also as published (shortcut_paper), and parts of iSM, +guidance and so on (anystep
    recipes). Default: all methods, and those as published."""
    without: Sequence[str] = ()
    """Methods to exclude, by spaces or commas."""
    seeds: Sequence[int] = (0,)
    """Seeds of the training runs; two or more give mean and spread."""
    steps: Sequence[int] = STEPS
    """Numbers of sampling steps, any integers of at least 1."""
    num: int = 2048
    """Samples for each number of steps. A Frechet distance depends on it: compare at equal numbers only."""
    metrics: Sequence[str] | None = None
    """Metrics, by spaces or commas. Default: the usual ones for the kind of data."""
    classifier: Path | None = None
    """Weights of the classifier whose features `METRIC@classifier` compares."""
    guidance: float | None = None
    """Guidance scale W of methods that condition on it (improved_shortcut and its parts). Default: 1, none."""

    def __post_init__(self) -> None:
        for field in ("methods", "without", "metrics"):
            object.__setattr__(self, field, split_commas(getattr(self, field)))
        if not self.names():
            raise UsageError("without leaves no method to compare")
        usual = [name for name, metric in METRICS.items() if metric.usual]
        metrics = choose_metrics(usual if self.metrics is None else self.metrics)
        fewest = max(metric.fewest for metric in metrics.values())
        for what, values, least in (("steps", self.steps, 1), ("seeds", self.seeds, 0), ("num", [self.num], fewest)):
            if not values or min(values) < least:
                raise UsageError(f"{what} must be at least {least}, got {min(values) if values else 'none'}")
        if self.guidance is not None and not isfinite(self.guidance):
            raise UsageError(f"guidance must be a finite number, got {self.guidance}")

    def names(self) -> list[str]:
        """Return the methods and parts, each once. Raises UsageError."""
        excluded = check_names("without", self.without, NAMES) if self.without else ()
        methods = [*OBJECTIVES, *PAPER] if self.methods is None else self.methods
        return [name for name in check_names("methods", methods, NAMES) if name not in excluded]


def check_names(what: str, requested: Sequence[str], names: Iterable[str]) -> list[str]:
    """Return the requested names, each once. Raises UsageError without any, or with the nearest names to an unknown."""
    for name in requested:
        if name not in names:
            raise UsageError(f"{what} must be among {', '.join(names)}, got {name!r}{did_you_mean(name, names)}")
    if not requested:
        raise UsageError(f"{what} must name at least one of {', '.join(names)}, got none")
    return list(dict.fromkeys(requested))


def takes_guidance(name: str) -> bool:
    """Return whether a method, or a part of iSM, has the guidance scale as an input."""
    return name in PARTS or OBJECTIVES[PAPER.get(name, name)].takes_guidance


def compare(
    base: Config,
    out: str | Path,
    choices: Choices | None = None,
    *,
    jobs: int = 1,
    imports: Sequence[str] = (),
    watch: TrialCallback | None = None,
    stop: StopRequest | None = None,
) -> Comparison:
    """Train the chosen methods (default: all) at the cost of ``base`` into ``out``/METHOD-seedK, and score them.

    Each method has ``base``'s data, network size and optimizer, and its options in the recipe's family; ``base``'s own
    method keeps its options. Finished training and scores are not repeated. ``jobs`` runs are trained at a time, in
    processes that share the cores and import the modules ``imports``. If a run fails, the others continue. Raises what
    `plan_checked` raises, before any training.
    """
    trials = plan_checked(base, Path(out), choices or Choices())
    results = attempt_all(trials, watch or (lambda trial, event: None), stop or StopRequest(), jobs, imports)
    return Comparison(base, results)


def plan_checked(base: Config, out: Path, choices: Choices) -> list[Trial]:
    """Return the trials of `compare`, checked as far as possible without training. Writes nothing.

    Raises UsageError for impossible choices, RunError for run directories with other content, DataError.
    """
    trials = plan_trials(base, Path(out), choices)
    if choices.guidance is not None and all(trial.guidance is None for trial in trials):
        guided = ", ".join(name for name in NAMES if takes_guidance(name))
        raise UsageError(f"guidance needs a method that has it as a network input ({guided}), none is compared")
    check_trials(trials)
    return trials


def plan_trials(base: Config, out: Path, choices: Choices) -> list[Trial]:
    """Return the trials, all methods of a seed before the next seed. Raises UsageError."""
    if base.init.run is not None:
        raise UsageError(
            f"init.run {base.init.run}: runs are compared at equal compute from the start; compare a config without it"
        )
    configs, bad = dict[str, Config](), dict[str, ValueError]()
    for name in choices.names():
        try:
            configs[name] = config_at_cost(base, name, choices.steps).located()
        except ValueError as error:
            bad[name] = error
    if bad:
        name, why = next(iter(bad.items()))
        raise UsageError(f"{name}: {why}\nor exclude what is not possible: --without {','.join(bad)}") from why
    first_names: dict[Config, str] = {}
    for name, config in list(configs.items()):  # equal where an option of iSM is set for all methods
        other = first_names.setdefault(replace(config, recipe=""), name)
        if other == name:
            continue
        if choices.methods is not None:
            raise UsageError(f"{name} is here the same run as {other}: exclude it, --without {name}")
        del configs[name]  # the recipe is as published
    return [
        Trial(
            replace(config, training=replace(config.training, seed=seed)),
            out / f"{name}-seed{seed}",
            tuple(sorted(set(choices.steps))),
            choices.num,
            None if choices.metrics is None else tuple(dict.fromkeys(choices.metrics)),
            choices.guidance if config.objective.takes_guidance else None,
            name if name in (*PAPER, *PARTS) else None,
            choices.classifier,
        )
        for seed in dict.fromkeys(choices.seeds)
        for name, config in configs.items()
    ]


def config_at_cost(base: Config, method: str, steps: Sequence[int]) -> Config:
    """Return a method's config at the cost of ``base``. Raises UsageError when it has no such run or schedule.

    The section weight stays where the method has examples that it acts on.
    """
    config = base if method == base.objective.name else with_method(base, method)
    if not config.objective.marked:
        config = replace(config, weight=NoWeight())
    try:
        segments(config)
    except ValueError as error:
        flow = base if base.objective.name == "flow_matching" else with_method(base, "flow_matching")
        raise UsageError(f"at the cost of --images {flow.training.images}, {error}") from error
    for count in steps:
        config.objective.schedule(count)
    return config


def check_trials(trials: Sequence[Trial]) -> None:
    """Raise what would otherwise fail hours later. Writes nothing.

    ValueError for methods, a network, a loss or metrics that do not fit the data, UsageError and RunError for a run
    directory with other content, DataError.
    """
    config, metrics = trials[0].config, trials[0].metrics or ()
    device = pick_device(config.training.device)
    dataset = config.data.open("train")
    facts = DataFacts.of(dataset, config.codec)
    for name, metric in choose_metrics(trials[0].metrics, facts.codec.looks).items():
        if len(dataset) < metric.fewest:
            found = f"{name} needs at least {metric.fewest} examples, and {dataset.name!r} has {len(dataset)}"
            raise UsageError(f"{found}: add some, or choose other --metrics")
    for name in metrics:
        if "conditions" in find_metric(name).needs and facts.conditions.num_classes is None:
            raise UsageError(f"{name} needs classes, and this data has none: exclude it from the metrics")
    path = trials[0].classifier
    classifier = None if path is None else ClassifierSpace(path, dataset)
    build_spaces({name: find_metric(name) for name in metrics}, facts.codec, facts.shape, device, classifier)
    if facts.conditions.num_classes is None:
        if any(trial.guidance not in {None, 1} for trial in trials):
            raise UsageError("guidance needs classes, and this data has none: omit it")
        if idle := [trial.variant for trial in trials if trial.variant in {"+guidance", "+interval"}]:
            raise UsageError(f"{idle[0]} needs classes, and this data has none: --without +guidance,+interval")
    with torch.random.fork_rng(devices=[]):
        config.network.build(facts.shape, facts.conditions, config.objective.M)
    for trial in trials:
        trial.config.check(facts.shape, facts.conditions)
        check_run_free(trial, dataset)


def check_run_free(trial: Trial, dataset: Dataset) -> None:
    """Raise UsageError or RunError unless the run directory is free, or holds this run on this data."""
    run = trial.run
    if (run / "config.json").exists():
        if other := difference(read_config(run), trial.config, FREE):
            name, before, after = other
            raise UsageError(
                f"{run} holds a run with {name} {before}, not {after}: "
                "give another --out, or delete that run to train it again"
            )
        if (run / "run.json").exists():
            check_data(DataFacts.read(run), dataset, run)
    elif run.exists():
        leftovers = {"run.json", FAILED}
        if not run.is_dir() or any(p.name not in leftovers and p.name[0] != "." for p in run.iterdir()):
            raise RunError(f"{run} is in the way and holds no run: give another --out")


def with_earlier(comparison: Comparison, out: Path, choices: Choices) -> tuple[Comparison, int]:
    """Add the other scores of ``out``/compare.json; return the comparison and how many scores were dropped.

    Scores are reread from the runs: a run counts if it is finished, was trained with the config that this comparison
    would use, and was scored the same way (samples, metrics, reference, EMA, device).
    """
    try:
        earlier = _keys(json.loads((out / "compare.json").read_text())["scores"]) - _keys(comparison.scores())
    except (OSError, ValueError, KeyError, TypeError):  # no such file, or of another kind
        return comparison, 0
    if not earlier:
        return comparison, 0
    dataset = comparison.base.data.open("train")
    columns = tuple(sorted({steps for _, _, steps, _ in earlier} | set(choices.steps)))
    results = {(result.trial.method, result.trial.seed): result for result in comparison.results}
    for method, seed in sorted({(method, seed) for method, seed, *_ in earlier}):
        old = results.get((method, seed))
        if old is not None and old.failed:
            continue
        try:
            one = replace(choices, methods=[method], without=(), seeds=[seed])
            (trial,) = [old.trial] if old is not None else plan_trials(comparison.base, out, one)
            check_run_free(trial, dataset)
        except (RunError, ValueError):  # this comparison could not have that run
            continue
        found = stored_result(replace(trial, steps=columns))
        if found.scores:
            results[method, seed] = replace(found, trial=trial)
    union = replace(comparison, results=list(results.values()))
    return union, len(earlier - _keys(union.scores()))


def _keys(scores: Iterable[dict[str, Any]]) -> set[tuple[str, int, int, float]]:
    """Return method, seed, steps and guidance of each score."""
    return {(score["method"], score["seed"], score["steps"], score["guidance"]) for score in scores}
