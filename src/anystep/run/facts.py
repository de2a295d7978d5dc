"""What a run directory says of itself: its config, and what a network must know of its data."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from anystep import codecs
from anystep.codecs import Auto, Codec, chosen
from anystep.core import files
from anystep.core.errors import RunError, reason
from anystep.data import Dataset
from anystep.run.config import Config, from_json, upgrade


@dataclass(frozen=True)
class DataFacts:
    """What a network must know of its data to be sampled from without it; `run.json` holds it.

    ``shape`` is that of an example as the network sees it; ``codec`` has its statistics.
    """

    name: str
    shape: tuple[int, ...]
    codec: Codec
    num_classes: int | None
    class_names: tuple[str, ...] | None
    size: int
    fingerprint: str

    @classmethod
    def of(cls, dataset: Dataset, codec: Codec | None = None) -> "DataFacts":
        """Return the facts of a data set, with this codec fitted to it (None, or `Auto`: the data set's own)."""
        fitted = chosen(codec or Auto(), dataset.codec).fit(dataset)
        return cls(
            name=dataset.name,
            shape=fitted.shape(),
            codec=fitted,
            num_classes=dataset.num_classes,
            class_names=dataset.class_names,
            size=len(dataset),
            fingerprint=dataset.fingerprint,
        )

    @classmethod
    def read(cls, run: Path) -> "DataFacts":
        """Read the facts of a run directory. Raises RunError when the file is missing, foreign or contradictory."""
        path = run / "run.json"
        try:
            values = json.loads(path.read_text())["data"]
            if "codec" not in values:
                values = _of_first_release(values, run)
            shape, names = tuple(values["shape"]), values["class_names"]
            codec = codecs.from_json(values["codec"])
            if codec.shape() != shape:
                raise ValueError(
                    f"its codec {codec.name} is fitted to examples of shape {list(codec.shape())}, "
                    f"and the network has {list(shape)}"
                )
            read = {"shape": shape, "codec": codec, "class_names": None if names is None else tuple(names)}
            return cls(**(values | read))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"cannot read {path}: {reason(error)}") from error

    def write(self, run: Path, version: str, notes: Sequence[str] = ()) -> None:
        """Write `run.json`: these facts, the versions that made the run, and what a user should know of it."""
        versions = {"anystep": version, "torch": torch.__version__, "python": platform.python_version()}
        data = vars(self) | {"codec": codecs.to_json(self.codec)}
        text = json.dumps({"versions": versions, "data": data, "notes": list(notes)}, indent=2)
        files.write_text(run / "run.json", text + "\n")


def _of_first_release(values: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """Return the facts that a run of 0.1.0 wrote, with a codec in place of their kind, mean and std.

    0.1.0 had one mean and deviation for all columns of vectors. Whether it mirrored pictures is in the config.
    """
    kept = {name: value for name, value in values.items() if name not in ("kind", "mean", "std")}
    mean, std, shape = values["mean"], values["std"], values["shape"]
    if values["kind"] == "image":
        options = upgrade(json.loads((run / "config.json").read_text())).get("codec", {"name": "pixels"})
        channels, *sides = shape
        return kept | {"codec": {**options, "size": [*sides, channels], "mean": mean, "std": std}}
    return kept | {"codec": {"name": "vectors", "mean": [mean] * shape[0], "std": [std] * shape[0]}}


def read_config(run: Path) -> Config:
    """Read the config of a run directory, or a config.json. Raises RunError when missing, ValueError when wrong."""
    path = run / "config.json" if run.is_dir() else run
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise RunError(f"cannot read {path}: {reason(error)}") from error
    except ValueError as error:
        raise RunError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise RunError(f"{path} is not a config: an object is expected")
    return from_json(values)
