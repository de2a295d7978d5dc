"""Training state on disk: directories that appear atomically or not at all, tensors in safetensors, no pickle.

``checkpoints/step-00000200/`` holds ``network``, ``ema_target``, ``ema_evaluation`` and ``optimizer`` as safetensors,
and ``state.json`` with the step, the counters and the log's sums since its last record. ``penalty`` is the state of the
sections penalty and weight, if they have one. With `ema.profiles` there are ``ema_power_0.05`` and so on too;
``profiles/step-00000200/`` holds copies of these alone, which are never deleted.
"""

import json
import shutil
from collections.abc import Callable, Mapping
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
    """Everything that a run needs to resume: named groups of tensors, and plain values."""

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
    """Write a checkpoint to a temporary directory, flush it to disk, and rename it.

    Raises RunError when it cannot be written; earlier checkpoints stay.
    """
    final = directory(root, step)
    partial = root / f".partial-{step:08d}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for unfinished in root.glob(".partial-*"):  # left by a kill
            shutil.rmtree(unfinished, ignore_errors=True)
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


def read(path: Path, groups: tuple[str, ...] | None = None, advice: str | None = None) -> Checkpoint:
    """Read a checkpoint directory, all groups or those named.

    Raises RunError, with ``advice``, that names the file which is missing, truncated or foreign.
    """
    advice = advice or f"delete {path} to use the one before it"
    file = path / "state.json"
    tensors = {}
    try:
        values = json.loads(file.read_text())
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise RunError(f"{file} is not a checkpoint of this program (format {FORMAT!r} expected)")
        for name in tuple(values["groups"]) if groups is None else groups:
            file = path / f"{name}.safetensors"
            tensors[name] = load_file(file)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise RunError(f"cannot read {file}: {reason(error)}; {advice}") from error
    return Checkpoint(tensors, values)


def prune(root: Path, config: CheckpointConfig, batch: int, scheduled: Callable[[int], bool], last: int) -> None:
    """Delete all but the newest ``keep_last`` and the first after each multiple of ``keep_every`` images.

    Checkpoints at steps that are not ``scheduled``, by the clock or by a signal, are counted separately, so that the
    others are the same in every run; after the ``last`` step they are deleted.
    """
    found = listing(root)
    planned = [step for step, _ in found if scheduled(step)]
    newest = planned[-config.keep_last :]
    if found[-1][0] < last:
        newest += [step for step, _ in found[-config.keep_last :]]
    kept = 0
    for step, path in found:
        multiples = step * batch // config.keep_every if config.keep_every and step in planned else 0
        if multiples > kept or step in newest:
            kept = max(kept, multiples)
            continue
        with suppress(OSError):  # renamed first: a kill half-way leaves nothing that looks like a checkpoint
            shutil.rmtree(path.rename(path.with_name(f".partial-{path.name}")))
