"""What a run directory says of itself: its config, and what a network must know of its data."""

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anystep.codecs import Auto, Codec, codec_from_json, codec_to_json
from anystep.core import files, random
from anystep.core.errors import RunError, UsageError, reason
from anystep.core.random import Keys
from anystep.core.registry import import_modules
from anystep.data import Dataset
from anystep.flow.condition import UNCONDITIONAL, ConditionSpec, Entry, class_labels
from anystep.run.config import Config, ModelConfig, from_json, model_from_json, upgrade


@dataclass(frozen=True)
class DataFacts:
    """What a network must know of its data to be sampled from without it; `run.json` holds it.

    ``shape`` is that of an example as the network sees it; ``codec`` has its statistics, and ``condition_codecs`` those
    of features, by entry of ``conditions``.
    """

    name: str
    shape: tuple[int, ...]
    codec: Codec
    conditions: ConditionSpec
    size: int
    fingerprint: str
    key_version: int = random.KEY_VERSION
    condition_codecs: Mapping[str, Codec] = field(default_factory=dict)

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
        try:
            stored = json.loads(path.read_text())
            values = stored["data"] | {"key_version": Keys(0, dict(stored.get("versions", {})).get("keys", 1)).version}
            if "codec" not in values:
                values = _of_first_release(values, run)
            shape, codec = tuple(values["shape"]), codec_from_json(values["codec"])
            if codec.shape() != shape:
                raise ValueError(
                    f"its codec {codec.name} is fitted to examples of shape {list(codec.shape())}, "
                    f"and the network has {list(shape)}"
                )
            read: dict[str, Any] = {"shape": shape, "codec": codec, "conditions": _conditions(values["conditions"])}
            fitted = {name: codec_from_json(each) for name, each in values.get("condition_codecs", {}).items()}
            for name, entry in read["conditions"].entries.items():
                width = math.prod(entry.shape)
                if entry.kind == "feature" and (name not in fitted or fitted[name].shape() != (width,)):
                    raise ValueError(f"its condition {name} has no codec that is fitted to {width} numbers")
            read["condition_codecs"] = fitted
            return cls(**(values | read))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"cannot read {path}: {reason(error)}") from error

    def write(self, run: Path, version: str, notes: Sequence[str] = ()) -> None:
        """Write `run.json`: these facts, the versions that made the run, and what a user should know of it."""
        versions: dict[str, Any] = {"anystep": version, "torch": torch.__version__, "numpy": np.__version__}
        versions |= {"python": platform.python_version(), "keys": self.key_version}
        entries = {name: entry._asdict() for name, entry in self.conditions.entries.items()}
        data = vars(self) | {
            "codec": codec_to_json(self.codec),
            "conditions": {"single": self.conditions.single, "entries": entries},
            "condition_codecs": {name: codec_to_json(each) for name, each in self.condition_codecs.items()},
        }
        data.pop("key_version")
        text = json.dumps({"versions": versions, "data": data, "notes": list(notes)}, indent=2)
        files.write_text(run / "run.json", text + "\n")

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None without class labels."""
        return self.conditions.num_classes


def _conditions(values: Mapping[str, Any]) -> ConditionSpec:
    """Return the conditions that `DataFacts.write` wrote."""
    entries = {}
    for name, entry in values["entries"].items():
        classes = entry["classes"]
        entries[name] = Entry(
            entry["kind"], tuple(entry["shape"]), None if classes is None else tuple(classes), entry["drop"]
        )
    return ConditionSpec(entries, values["single"])


def _of_first_release(values: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """Return the facts that a run of 0.1.0 wrote, with a codec in place of their kind, mean and std.

    0.1.0 had one mean and deviation for all columns of vectors. Whether it mirrored pictures is in the config.
    """
    kept = {name: values[name] for name in ("name", "shape", "size", "fingerprint", "key_version")}
    spec = UNCONDITIONAL if values["class_names"] is None else class_labels(values["class_names"])
    entries = {name: entry._asdict() for name, entry in spec.entries.items()}
    kept["conditions"] = {"single": spec.single, "entries": entries}
    mean, std, shape = values["mean"], values["std"], values["shape"]
    if values["kind"] == "image":
        options = upgrade(json.loads((run / "config.json").read_text())).get("codec", {"name": "pixels"})
        channels, *sides = shape
        return kept | {"codec": {**options, "size": [*sides, channels], "mean": mean, "std": std}}
    return kept | {"codec": {"name": "vectors", "mean": [mean] * shape[0], "std": [std] * shape[0]}}


def read_config(run: str | Path, *, imports: Sequence[str] = ()) -> Config:
    """Read the config of a run directory, or a config.json.

    ``imports``: modules of the user's own that the config names classes of (`import_modules`). Raises RunError when the
    file is missing or that of a run directory is wrong, UsageError when a config.json is wrong.
    """
    import_modules(imports)
    path = Path(run, "config.json") if Path(run).is_dir() else Path(run)
    values = _read_values(path)
    if not Path(run).is_dir():
        return from_json(values)
    try:
        return from_json(values, complete=True)
    except UsageError as error:
        raise RunError(f"{path}: {error}") from error


def read_model_config(run: Path, *, imports: Sequence[str] = ()) -> ModelConfig:
    """Read what the trained network of a run directory is built from. Its data source need not be here.

    Raises RunError when the file is missing or wrong.
    """
    import_modules(imports)
    path = run / "config.json"
    try:
        return model_from_json(_read_values(path))
    except UsageError as error:
        raise RunError(f"{path}: {error}") from error


def _read_values(path: Path) -> dict[str, Any]:
    """Read a config.json. Raises RunError when it is missing or no JSON object."""
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise RunError(f"cannot read {path}: {reason(error)}") from error
    except ValueError as error:
        raise RunError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise RunError(f"{path} is not a config: an object is expected")
    return values
