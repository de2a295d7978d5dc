"""A run directory: whether it may be written, whether it holds this very run, and what is written first."""

import json
from collections.abc import Container, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from anystep.codecs import Auto
from anystep.core import files
from anystep.core.errors import RunError, UsageError, reason
from anystep.data import Dataset
from anystep.run.config import Config, to_json
from anystep.run.facts import DataFacts, read_config
from anystep.run.plan import phases


def check_directory(config: Config, out: Path, resume: bool) -> None:
    """Raise RunError unless ``out`` is free, or with ``resume`` holds this very run; UsageError if options differ."""
    try:
        held = (out / "config.json").exists()
        if held and not resume:
            raise RunError(f"{out} already holds a run: continue it with --resume, or choose another --out")
        if not held and out.exists() and any(p.name != "run.json" and p.name[0] != "." for p in out.iterdir()):
            raise RunError(f"{out} is not empty and holds no run: choose another --out")
    except OSError as error:
        raise RunError(f"cannot write the run directory {out}: {reason(error)}") from error
    if held:
        check_unchanged(read_config(out), config, out)


def data_facts(config: Config, dataset: Dataset, out: Path) -> DataFacts:
    """Return the facts of the run's data: those that a started run has recorded, else with the codec fitted now.

    Raises RunError when the data has changed since the run started.
    """
    if not ((out / "config.json").exists() and (out / "run.json").exists()):
        return DataFacts.of(dataset, config.codec)
    recorded = DataFacts.read(out)
    check_data(recorded, dataset, out)
    return recorded


def write_run(config: Config, facts: DataFacts, notes: Sequence[str], out: Path) -> None:
    """Write `run.json`, unless it has these facts, and `config.json`. Raises RunError when that fails."""
    text = json.dumps(to_json(config), indent=2) + "\n"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not (out / "run.json").exists() or DataFacts.read(out) != facts:  # a start that was killed may have left one
            facts.write(out, version("anystep"), notes)
        files.write_text(out / "config.json", text)
    except OSError as error:
        raise RunError(f"cannot write the run directory {out}: {reason(error)}") from error


def check_unchanged(stored: Config, config: Config, out: Path) -> None:
    """Raise UsageError unless the resumed run differs at most in its device, and in its length if that is no matter."""
    if isinstance(stored.codec, Auto) and (out / "run.json").exists():  # a run of 0.1.0
        stored = replace(stored, codec=DataFacts.read(out).codec)
    count, objective = len(phases(config)), config.objective
    why = f"the {count} phases of {objective.name} are shares of it" if count > 1 else None
    if objective.scheduled:
        why = f"the targets of {objective.name} depend on how far the run is, and would go back"
    if why is not None and stored.training.steps != config.training.steps:
        raise UsageError(f"--images cannot change with --resume: {why} ({stored.training.images} images in {out})")
    if other := difference(stored, config, {"training.images", "training.device"}):
        name, before, after = other
        raise UsageError(
            f"--resume goes on with {out} as it was configured: {name} is {before}, not {after}; "
            "only --images and --device may change"
        )


def difference(stored: Config, config: Config, free: Container[str]) -> tuple[str, Any, Any] | None:
    """Return the first option in which two runs differ, with its values, those apart that are ``free`` to."""
    before, after = options(stored), options(config)
    if isinstance(stored.codec, Auto) or isinstance(config.codec, Auto):  # whatever the data set has
        after = {name: value for name, value in after.items() if not name.startswith("codec.")}
    other = (name for name, value in after.items() if name not in free and value != before.get(name))
    return next(((name, before.get(name), after[name]) for name in other), None)


def options(config: Config) -> dict[str, Any]:
    """Return every value of a config by its dotted name, paths made absolute; `network.name` before what is in it."""
    values = to_json(config.located())
    sections = {name: fields for name, fields in values.items() if isinstance(fields, dict)}
    inner = {f"{section}.{name}": value for section, fields in sections.items() for name, value in fields.items()}
    return {"recipe": values["recipe"], **inner}


def check_data(recorded: DataFacts, dataset: Dataset, out: Path) -> None:
    """Raise RunError unless the data is what it was when the run began."""
    if recorded.fingerprint != dataset.fingerprint:
        raise RunError(
            f"the data of {out} has changed since the run began ({recorded.size} examples then, {len(dataset)} now): "
            "restore it, or start a new run with another --out"
        )
