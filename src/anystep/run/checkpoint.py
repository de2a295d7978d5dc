"""Training state on disk: directories that appear atomically or not at all, tensors in safetensors, no pickle.

``checkpoints/step-00000200/`` holds ``network``, ``ema_target``, ``ema_evaluation`` and ``optimizer`` as safetensors,
and ``state.json`` with the step, counters and what the log has accumulated since its last record. ``penalty`` is what
the sections penalty and weight have seen and learned, if anything. With `ema.profiles` it holds ``ema_power_0.05`` and
so on too, and ``profiles/step-00000200/`` these alone, for good.
"""

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from anystep.core.errors import RunError, reason
from anystep.core.files import sync
from anystep.run.config import CheckpointConfig

FORMAT = "anystep-checkpoint-1"


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to go on: named groups of tensors, and plain values."""

    groups: Mapping[str, Mapping[str, Tensor]]
    values: Mapping[str, Any]


def directory(root: Path, step: int) -> Path:
    """Return the directory of the checkpoint after ``step`` updates."""
    return root / f"step-{step:08d}"


def listing(root: Path) -> list[tuple[int, Path]]:
    """Return (step, directory) of every checkpoint under ``root``, oldest first."""
    found = [(p, p.name.removeprefix("step-")) for p in root.glob("step-*") if p.is_dir()]
    return sorted((int(step), path) for path, step in found if step.isdigit())


def save(root: Path, step: int, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint beside its place, flush it to disk, and rename it.

    Raises RunError when it cannot be written; what was there before stays.
    """
    final = directory(root, step)
    partial = root / f".partial-{step:08d}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for left in root.glob(".partial-*"):  # by a kill
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir()
        for name, tensors in checkpoint.groups.items():
            whole = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            save_file(whole, partial / f"{name}.safetensors")
        values = {"format": FORMAT, "groups": sorted(checkpoint.groups), **checkpoint.values}
        (partial / "state.json").write_text(json.dumps(values))
        for path in partial.iterdir():
            sync(path)
        sync(partial)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        sync(root)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise RunError(f"cannot write a checkpoint to {root}: {reason(error)}") from error
    return final


def load(
    path: Path, groups: tuple[str, ...] | None = None, without: str = "to go back to the one before"
) -> Checkpoint:
    """Read a checkpoint directory, all groups or those named.

    Raises RunError that names the file when one is missing, truncated or foreign, with what it brings to
    delete the directory, ``without``.
    """
    state = path / "state.json"
    try:
        values = json.loads(state.read_text())
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise RunError(f"{state} is not a checkpoint of this program (format {FORMAT!r} expected)")
        wanted = tuple(values["groups"]) if groups is None else groups
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"cannot read {state}: {reason(error)}; delete {path} {without}") from error
    tensors = {}
    for name in wanted:
        file = path / f"{name}.safetensors"
        try:
            tensors[name] = load_file(file)
        except (OSError, SafetensorError) as error:
            raise RunError(f"cannot read {file}: {reason(error)}; delete {path} {without}") from error
    return Checkpoint(tensors, values)


def prune(root: Path, config: CheckpointConfig, batch: int) -> None:
    """Delete all but the newest ``keep_last`` and the first after each multiple of ``keep_every`` images."""
    kept = 0
    every = listing(root)
    for step, path in every[: -config.keep_last]:
        passed = 0 if config.keep_every is None else step * batch // config.keep_every
        if passed > kept:
            kept = passed
        else:
            discard(path)


def discard(path: Path) -> None:
    """Delete a checkpoint; a kill half-way leaves nothing that looks like one."""
    doomed = path.with_name(f".partial-{path.name}")
    with suppress(OSError):
        path.rename(doomed)
        shutil.rmtree(doomed)
