"""Every method on one's own data at equal compute, as in Table 1 of Frans et al. 2024. Compute is counted in network
forward units."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import isfinite
from pathlib import Path

import torch

from anystep.comparison.outcome import Comparison
from anystep.comparison.processes import attempt_all
from anystep.comparison.trials import FAILED, Trial, Watch
from anystep.core.device import pick_device
from anystep.core.errors import RunError, UsageError
from anystep.data import Dataset
from anystep.evaluation.metrics import METRICS, build_spaces, choose_metrics, find_metric
from anystep.objectives import OBJECTIVES
from anystep.recipes import PARTS, with_method
from anystep.run.config import Config
from anystep.run.directory import check_data, difference
from anystep.run.facts import DataFacts, read_config
from anystep.run.plan import forward_units, segments
from anystep.training.signals import StopRequest

STEPS = (1, 2, 4, 8, 32, 128)
#: what can be compared
NAMES = (*OBJECTIVES, *PARTS)


@dataclass(frozen=True)
class Choices:
    """What is compared, and how it is scored. Raises UsageError when it is made of what cannot be."""

    methods: Sequence[str] | None = None
    """Methods, or parts of iSM (`recipes.PARTS`); None is all methods."""
    without: Sequence[str] = ()
    """Methods to leave out."""
    seeds: Sequence[int] = (0,)
    """Seeds of the training runs."""
    steps: Sequence[int] = STEPS
    """Sampling budgets."""
    num: int = 2048
    """Number of samples at each budget."""
    metrics: Sequence[str] | None = None
    """Metrics; None is those of the kind of data."""
    guidance: float | None = None
    """Guidance scale W of the samples of methods whose network is told it; the others are drawn as trained."""

    def __post_init__(self) -> None:
        if not self.names():
            raise UsageError("without leaves no method to compare")
        metrics = METRICS if self.metrics is None else choose_metrics(self.metrics)
        fewest = max(metric.fewest for metric in metrics.values())
        for what, values, least in (("steps", self.steps, 1), ("seeds", self.seeds, 0), ("num", [self.num], fewest)):
            if not values or min(values) < least:
                raise UsageError(f"{what} must be at least {least}, got {min(values) if values else 'none'}")
        if self.guidance is not None and not isfinite(self.guidance):
            raise UsageError(f"guidance must be a finite number, got {self.guidance}")

    def names(self) -> list[str]:
        """Return the methods and parts, each once. Raises UsageError."""
        asked = known("methods", list(OBJECTIVES) if self.methods is None else self.methods, NAMES)
        out = known("without", self.without, NAMES) if self.without else ()
        return [name for name in asked if name not in out]


def known(what: str, asked: Sequence[str], names: Iterable[str]) -> list[str]:
    """Return what is asked, each once. Raises UsageError that offers the nearest for one that is not known, or none."""
    for name in asked:
        if name not in names:
            near = get_close_matches(name, names, n=2)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise UsageError(f"{what} must be among {', '.join(names)}, got {name!r}{hint}")
    if not asked:
        raise UsageError(f"{what} must name at least one of {', '.join(names)}, got none")
    return list(dict.fromkeys(asked))


def compare(
    base: Config,
    out: str | Path,
    choices: Choices | None = None,
    *,
    jobs: int = 1,
    imports: Sequence[str] = (),
    watch: Watch | None = None,
    stop: StopRequest | None = None,
) -> Comparison:
    """Train the chosen methods (default: all) at the cost of ``base`` into ``out``/METHOD-seedK, and score them.

    Each method has ``base``'s data, network size and optimizer, and the family's choices; ``base``'s own method its own
    options. What is trained or scored already is not made again. ``jobs`` runs are made at a time, in processes that
    share the cores; these import the modules ``imports`` first. A run that fails leaves the others. Raises what
    `plan_checked` does, before anything is trained.
    """
    trials = [replace(trial, imports=tuple(imports)) for trial in plan_checked(base, Path(out), choices or Choices())]
    results = attempt_all(trials, watch or (lambda trial, news: None), stop or StopRequest(), jobs)
    return Comparison(base, forward_units(base), trials, results)


def plan_checked(base: Config, out: Path, choices: Choices) -> list[Trial]:
    """Return the trials of `compare`, which can be trained and scored as far as can be known before. Writes nothing.

    Raises UsageError for what cannot be compared, RunError for run directories that hold something else, DataError.
    """
    trials = plan(base, Path(out), choices)
    if choices.guidance is not None and all(trial.guidance is None for trial in trials):
        told = ", ".join(name for name in NAMES if name in PARTS or OBJECTIVES[name].takes_guidance)
        raise UsageError(f"guidance is for methods whose network is told it ({told}), and none of them is compared")
    check(trials)
    return trials


def plan(base: Config, out: Path, choices: Choices) -> list[Trial]:
    """Return the trials, all methods of a seed before the next seed. Raises UsageError."""
    if base.init.run is not None:
        raise UsageError(
            f"init.run {base.init.run}: runs are compared at equal compute from the start; compare a config without it"
        )
    configs, bad = {}, dict[str, ValueError]()
    for name in choices.names():
        try:
            configs[name] = at_the_cost(base, name, choices.steps).located()
        except ValueError as error:
            bad[name] = error
    if bad:
        name, why = next(iter(bad.items()))
        raise UsageError(f"{name}: {why}\nor leave out what cannot be: --without {','.join(bad)}") from why
    check_different(configs)
    return [
        Trial(
            replace(config, training=replace(config.training, seed=seed)),
            out / f"{name}-seed{seed}",
            tuple(sorted(set(choices.steps))),
            choices.num,
            None if choices.metrics is None else tuple(dict.fromkeys(choices.metrics)),
            choices.guidance if config.objective.takes_guidance else None,
            name if name in PARTS else None,
        )
        for seed in dict.fromkeys(choices.seeds)
        for name, config in configs.items()
    ]


def check_different(configs: Mapping[str, Config]) -> None:
    """Raise UsageError when two names are one run, as a part of iSM is where its option is set for all."""
    names: dict[Config, str] = {}
    for name, config in configs.items():
        other = names.setdefault(config, name)
        if other != name:
            raise UsageError(f"{name} is here the same run as {other}: leave it out, --without {name}")


def at_the_cost(base: Config, method: str, steps: Sequence[int]) -> Config:
    """Return a method's run. Raises UsageError for one that cannot be, in the words of flow matching's images."""
    config = base if method == base.objective.name else with_method(base, method)
    try:
        segments(config)
    except ValueError as error:
        flow = base if base.objective.name == "flow_matching" else with_method(base, "flow_matching")
        raise UsageError(f"at the cost of --images {flow.training.images}, {error}") from error
    for budget in steps:
        config.objective.schedule(budget)
    return config


def check(trials: Sequence[Trial]) -> None:
    """Raise, before anything is trained, what would otherwise come up hours later. Writes nothing.

    ValueError for methods, a network, a loss or metrics that do not fit the data, UsageError and RunError for a run
    directory that holds something else, DataError.
    """
    config, metrics = trials[0].config, trials[0].metrics or ()
    device = pick_device(config.training.device)
    dataset = config.data.open("train")
    facts = DataFacts.of(dataset, config.codec)
    for name in metrics:
        if "conditions" in find_metric(name).needs and facts.num_classes is None:
            raise UsageError(f"{name} needs classes, and this data has none: leave it out of the metrics")
    build_spaces({name: find_metric(name) for name in metrics}, facts.codec, facts.shape, device)
    if facts.num_classes is None:
        if any(trial.guidance not in {None, 1} for trial in trials):
            raise UsageError("guidance needs classes, and this data has none: leave it out")
        if idle := [trial.part for trial in trials if trial.part in {"+guidance", "+interval"}]:
            raise UsageError(f"{idle[0]} needs classes, and this data has none: --without +guidance,+interval")
    with torch.random.fork_rng(devices=[]):
        config.network.build(facts.shape, facts.conditions, config.objective.M)
    for trial in trials:
        trial.config.check(facts.conditions)
        for part in (trial.config.penalty, trial.config.weight):
            part.start(facts.shape, trial.config.objective.tags, trial.config.objective.marked, torch.device("cpu"))
        check_place(trial, dataset)


def check_place(trial: Trial, dataset: Dataset) -> None:
    """Raise UsageError or RunError unless the run directory is free, or holds this very run on this very data."""
    run, ours = trial.run, {"run.json", FAILED}
    if (run / "config.json").exists():
        if other := difference(read_config(run), trial.config, {"training.device"}):
            name, before, after = other
            raise UsageError(
                f"{run} holds a run with {name} {before}, not {after}: "
                "give another --out, or delete that run to train it anew"
            )
        if (run / "run.json").exists():
            check_data(DataFacts.read(run), dataset, run)
    elif run.exists() and (not run.is_dir() or any(p.name not in ours and p.name[0] != "." for p in run.iterdir())):
        raise RunError(f"{run} is in the way and holds no run: give another --out")
