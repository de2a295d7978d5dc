"""What the files `config.json` and `run.json` of a run directory contain."""

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from anystep.codecs import Auto, Codec, codec_from_json, codec_to_json
from anystep.core import files, random
from anystep.core.errors import RunError, UsageError, reason
from anystep.core.random import Keys
from anystep.core.registry import import_modules
from anystep.data import Dataset
from anystep.flow.condition import UNCONDITIONAL, ConditionSpec, Entry, class_labels
from anystep.run.config import Config, ModelConfig, from_json, sections_from_json, upgrade

T = TypeVar("T")


@dataclass(frozen=True)
class DataFacts:
    """What sampling must know of a run's data without opening it, in `run.json`.

    ``shape`` is that of an example in network space. ``codec`` and ``condition_codecs`` (of features, by entry of
    ``conditions``) are fitted.
    """

    name: str
    shape: tuple[int, ...]
    codec: Codec
    conditions: ConditionSpec
    size: int
    fingerprint: str
    key_version: int
    condition_codecs: Mapping[str, Codec]

    @classmethod
    def of(cls, dataset: Dataset, codec: Codec | None = None) -> "DataFacts":
        """Return the facts of a data set, with this codec fitted to it (None, or `Auto`: the data set's own)."""
        fitted = (dataset.codec if codec is None or isinstance(codec, Auto) else codec).fit(dataset)
        return cls(
            name=dataset.name,
            shape=fitted.shape(),
            codec=fitted,
            conditions=dataset.conditions,
            size=len(dataset),
            fingerprint=dataset.fingerprint,
            key_version=random.KEY_VERSION,
            condition_codecs=dataset.fitted_condition_codecs(),
        )

    @classmethod
    def read(cls, run: Path) -> "DataFacts":
        """Read the facts of a run directory. Raises RunError when the file is missing, foreign or contradictory."""
        path = run / "run.json"
        stored = read_json(path)
        try:
            values = stored["data"]
            if "codec" not in values:
                values = _of_first_release(values, run)
            conditions, fitted = values["conditions"], values.get("condition_codecs", {})
            entries = {name: _entry(**entry) for name, entry in conditions["entries"].items()}
            read = {
                "shape": tuple(values["shape"]),
                "codec": codec_from_json(values["codec"]),
                "conditions": ConditionSpec(entries, conditions["single"]),
                "condition_codecs": {name: codec_from_json(each) for name, each in fitted.items()},
                "key_version": Keys(0, stored.get("versions", {}).get("keys", 1)).version,
            }
            facts = cls(**values | read)
            facts.check_codecs()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"cannot read {path}: {reason(error)}") from error
        return facts

    def check_codecs(self) -> None:
        """Raise ValueError unless all codecs are fitted to examples and features of the right shape."""
        if self.codec.shape() != self.shape:
            raise ValueError(
                f"its codec {self.codec.name} is fitted to examples of shape {list(self.codec.shape())}, "
                f"and the network has {list(self.shape)}"
            )
        for name, entry in self.conditions.entries.items():
            codec, width = self.condition_codecs.get(name), math.prod(entry.shape)
            if entry.kind == "feature" and (codec is None or codec.shape() != (width,)):
                raise ValueError(f"its condition {name} has no codec that is fitted to {width} numbers")

    def write(self, run: Path, notes: Sequence[str] = ()) -> None:
        """Write `run.json`: these facts, the versions of the software, and warnings about the run."""
        versions: dict[str, Any] = {"anystep": version("anystep"), "torch": torch.__version__, "numpy": np.__version__}
        versions |= {"python": platform.python_version(), "keys": self.key_version}
        data = vars(self) | {
            "codec": codec_to_json(self.codec),
            "conditions": _conditions_to_json(self.conditions),
            "condition_codecs": {name: codec_to_json(each) for name, each in self.condition_codecs.items()},
        }
        data.pop("key_version")
        text = json.dumps({"versions": versions, "data": data, "notes": list(notes)}, indent=2)
        files.write_text(run / "run.json", text + "\n")


def _conditions_to_json(spec: ConditionSpec) -> dict[str, Any]:
    return {"single": spec.single, "entries": {name: entry._asdict() for name, entry in spec.entries.items()}}


def _entry(kind: Any, shape: Sequence[int], classes: Sequence[str] | None, drop: bool) -> Entry:
    return Entry(kind, tuple(shape), None if classes is None else tuple(classes), drop)


def _of_first_release(values: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """Return the facts that a run of 0.1.0 wrote, with a codec in place of their kind, mean and std.

    0.1.0 had one mean and deviation for all columns of vectors. Whether it mirrored images is in the config.
    """
    names, mean, std, shape = (values[name] for name in ("class_names", "mean", "std", "shape"))
    if values["kind"] == "image":
        options = upgrade(read_json(run / "config.json")).get("codec", {"name": "pixels"})
        channels, *sides = shape
        codec = {**options, "size": [*sides, channels], "mean": mean, "std": std}
    else:
        codec = {"name": "vectors", "mean": [mean] * shape[0], "std": [std] * shape[0]}
    spec = UNCONDITIONAL if names is None else class_labels(names)
    kept = {name: values[name] for name in ("name", "shape", "size", "fingerprint")}
    return kept | {"codec": codec, "conditions": _conditions_to_json(spec)}


def read_config(run: str | Path, *, imports: Sequence[str] = ()) -> Config:
    """Read the config of a run directory, or a config.json.

    ``imports``: your modules whose classes the config names (`import_modules`). Raises RunError when the file is
    missing or the one of a run directory is wrong, UsageError when a config.json is wrong.
    """
    import_modules(imports)
    path = Path(run)
    return _config_of_run(path, Config) if path.is_dir() else from_json(read_json(path))


def read_model_config(run: Path, *, imports: Sequence[str] = ()) -> ModelConfig:
    """Read what the trained network of a run directory is built from. Its data source need not exist here.

    Raises RunError when the file is missing or wrong.
    """
    import_modules(imports)
    return _config_of_run(run, ModelConfig)


def _config_of_run(run: Path, kind: type[T]) -> T:
    path = run / "config.json"
    try:
        return sections_from_json(kind, read_json(path), complete=True)
    except UsageError as error:
        raise RunError(f"{path}: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a run directory. Raises RunError when it is missing or something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path.parent} is not a run directory: it has no {path.name}") from error
    except OSError as error:
        raise RunError(f"cannot read {path}: {reason(error)}") from error
    except ValueError as error:
        raise RunError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise RunError(f"{path}: expected an object, got {type(values).__name__}")
    return values
