"""What a run directory says of itself: its config, and what a network must know of its data."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anystep.core import files, random
from anystep.core.errors import RunError, UsageError, reason
from anystep.core.random import Keys
from anystep.core.registry import import_modules
from anystep.data import Dataset, Normalization
from anystep.flow.condition import UNCONDITIONAL, ConditionSpec, class_labels
from anystep.run.config import Config, from_json


@dataclass(frozen=True)
class DataFacts:
    """What a network must know of its data to be sampled from without it; `run.json` holds it."""

    name: str
    kind: str
    shape: tuple[int, ...]
    num_classes: int | None
    class_names: tuple[str, ...] | None
    mean: float
    std: float
    size: int
    fingerprint: str
    key_version: int = random.KEY_VERSION

    @classmethod
    def of(cls, dataset: Dataset) -> "DataFacts":
        """Return the facts of a data set."""
        normalization = dataset.normalization()
        return cls(
            name=dataset.name,
            kind=dataset.kind,
            shape=tuple(dataset.shape),
            num_classes=dataset.num_classes,
            class_names=dataset.class_names,
            mean=normalization.mean,
            std=normalization.std,
            size=len(dataset),
            fingerprint=dataset.fingerprint,
        )

    @classmethod
    def read(cls, run: Path) -> "DataFacts":
        """Read the facts of a run directory. Raises RunError when the file is missing or foreign."""
        path = run / "run.json"
        try:
            stored = json.loads(path.read_text())
            values = stored["data"] | {"key_version": Keys(0, dict(stored.get("versions", {})).get("keys", 1)).version}
            names = values["class_names"]
            tuples = {"shape": tuple(values["shape"]), "class_names": None if names is None else tuple(names)}
            return cls(**(values | tuples))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"cannot read {path}: {reason(error)}") from error

    def write(self, run: Path, version: str, notes: Sequence[str] = ()) -> None:
        """Write `run.json`: these facts, the versions that made the run, and what a person should know of it."""
        versions: dict[str, Any] = {"anystep": version, "torch": torch.__version__, "numpy": np.__version__}
        versions |= {"python": platform.python_version(), "keys": self.key_version}
        data = {name: value for name, value in asdict(self).items() if name != "key_version"}
        text = json.dumps({"versions": versions, "data": data, "notes": list(notes)}, indent=2)
        files.write_text(run / "run.json", text + "\n")

    @property
    def conditions(self) -> ConditionSpec:
        """What an example is given."""
        return UNCONDITIONAL if self.class_names is None else class_labels(self.class_names)

    @property
    def normalization(self) -> Normalization:
        """Map between stored data and what the network sees."""
        return Normalization(mean=self.mean, std=self.std, kind="image" if self.kind == "image" else "vector")


def key_version(run: Path) -> int:
    """Return the version of a run's random keys: its own, or the newest if it has not started."""
    try:
        started = (run / "run.json").exists()
    except OSError as error:
        raise RunError(f"cannot read {run}: {reason(error)}") from error
    return DataFacts.read(run).key_version if started else random.KEY_VERSION


def read_config(run: str | Path, *, imports: Sequence[str] = ()) -> Config:
    """Read the config of a run directory, or a config.json.

    ``imports``: modules of the user's own that the config names classes of (`import_modules`). Raises RunError when the
    file is missing or that of a run directory is wrong, UsageError when a config.json is wrong.
    """
    import_modules(imports)
    path = Path(run, "config.json") if Path(run).is_dir() else Path(run)
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise RunError(f"cannot read {path}: {reason(error)}") from error
    except ValueError as error:
        raise RunError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise RunError(f"{path} is not a config: an object is expected")
    if not Path(run).is_dir():
        return from_json(values)
    try:
        return from_json(values, complete=True)
    except UsageError as error:
        raise RunError(f"{path}: {error}") from error
