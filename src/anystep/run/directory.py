"""A run directory: whether a run may be written there or resumed, and what is written first."""

import json
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from anystep.codecs import Auto
from anystep.core import files
from anystep.core.errors import RunError, UsageError, counted, reason
from anystep.data import Dataset
from anystep.run.config import Config, to_json
from anystep.run.facts import DataFacts, read_config
from anystep.run.plan import phases

#: what may differ in a resumed run: it changes no result
FREE = frozenset({"training.device", "checkpoint.minutes", "preview.num"})


def check_directory(config: Config, out: Path, resume: bool) -> DataFacts | None:
    """Return the recorded facts of the data of the run to resume, None for a new run.

    Raises RunError unless ``out`` is free, or with ``resume`` contains this run; UsageError if its options differ.
    """
    try:
        started = (out / "config.json").exists()
        if started and not resume:
            raise RunError(f"{out} already holds a run: continue it with --resume, or choose another --out")
        if not started and out.exists() and any(p.name != "run.json" and p.name[0] != "." for p in out.iterdir()):
            raise RunError(f"{out} is not empty and holds no run: choose another --out")
    except OSError as error:
        raise RunError(f"cannot write the run directory {out}: {reason(error)}") from error
    if not started:
        return None
    stored, facts = read_config(out), DataFacts.read(out) if (out / "run.json").exists() else None
    if facts is not None and isinstance(stored.codec, Auto):  # a run of 0.1.0
        stored = replace(stored, codec=facts.codec)
    check_unchanged(stored, config, out)
    return facts


def write_run(config: Config, facts: DataFacts, notes: Sequence[str], out: Path) -> None:
    """Write `run.json`, unless the run is resumed, and `config.json`. Raises RunError when that fails."""
    text = json.dumps(to_json(config), indent=2) + "\n"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not ((out / "config.json").exists() and (out / "run.json").exists()):  # or a start that was killed left one
            facts.write(out, notes)
        files.write_text(out / "config.json", text)
    except OSError as error:
        raise RunError(f"cannot write the run directory {out}: {reason(error)}") from error


def check_unchanged(stored: Config, config: Config, out: Path) -> None:
    """Raise UsageError unless the resumed run differs in `FREE` options alone, and in its length if that is allowed."""
    count, objective = len(phases(config)), config.objective
    why = f"the {count} phases of {objective.name} are fractions of it" if count > 1 else None
    if objective.scheduled:
        why = f"the targets of {objective.name} depend on it"
    if why is not None and stored.training.steps != config.training.steps:
        raise UsageError(f"--images cannot change with --resume: {why} ({stored.training.images} images in {out})")
    if other := difference(stored, config, FREE | {"training.images"}):
        name, before, after = other
        raise UsageError(
            f"--resume continues {out} as it was configured: {name} is {before}, not {after}; "
            "only --images, --device, --checkpoint.minutes and --preview.num may change"
        )


def difference(stored: Config, config: Config, free: Container[str]) -> tuple[str, Any, Any] | None:
    """Return (name, stored value, new value) of the first option that differs, ignoring ``free``; else None.

    A codec or a precision that is left to be decided equals what was decided.
    """
    before, after = options(stored), options(config)
    auto = isinstance(stored.codec, Auto) or isinstance(config.codec, Auto)
    undecided = "auto" in {stored.training.precision, config.training.precision}
    for name, value in after.items():
        decided = (auto and name.startswith("codec.")) or (undecided and name == "training.precision")
        if value != before.get(name) and name not in free and not decided:
            return name, before.get(name), value
    return None


def options(config: Config) -> dict[str, Any]:
    """Return every value of a config by its dotted name, with absolute paths."""
    values = to_json(config.located())
    sections = {name: fields for name, fields in values.items() if isinstance(fields, dict)}
    inner = {f"{section}.{name}": value for section, fields in sections.items() for name, value in fields.items()}
    return {"recipe": values["recipe"], **inner}


def check_data(recorded: DataFacts, dataset: Dataset, out: Path) -> None:
    """Raise RunError unless the data is what it was when the run started."""
    if recorded.fingerprint != dataset.fingerprint:
        before = counted(recorded.size, "example")
        raise RunError(
            f"the data of {out} has changed since the run began ({before} then, {len(dataset)} now): "
            "restore it, or start a new run with another --out"
        )
