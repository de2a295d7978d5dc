"""Pairs of noise and data that a trained flow carries it to, for reflow: made once, kept in sharded files.

``pairs/pairs.json`` says how they were made, ``pairs/pairs-00000.safetensors`` holds x0, x1 (float32 [n, ...], model
space, never decoded in between) and, of conditional data, row (int64 [n]): the data set's row whose condition the pair
has. Data with class labels alone has label (int64 [n]) in its place. The noise of pair i is decided by (keys, i), the
rows of a file by (keys, its number, the data), x1 by these and the teacher. A file appears whole or not at all: making
them can be stopped anywhere, and shared out by file.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from anystep.core import files
from anystep.core.errors import RunError, reason
from anystep.data import batch_indices
from anystep.flow.condition import Condition, to
from anystep.flow.condition import rows as some
from anystep.flow.ladder import instantaneous_schedule
from anystep.flow.sampling import sample
from anystep.objectives import Batch, Draw
from anystep.objectives.base import Pairs
from anystep.training.examples import DataExamples
from anystep.training.state import State

#: pairs in a file
SHARD = 1024


@dataclass(frozen=True)
class PairExamples:
    """The pairs in a folder, as rows to train on. Raises RunError that names a file which is missing or damaged."""

    folder: Path
    num: int
    data: DataExamples

    def __len__(self) -> int:
        return self.num

    @cached_property
    def shards(self) -> list[dict[str, Tensor]]:
        """Every file, mapped into memory and read where it is touched."""
        shards = []
        for path in paths(self.folder, self.num):
            try:
                shards.append(load_file(path))
            except (OSError, SafetensorError) as error:
                raise RunError(f"cannot read {path}: {reason(error)}; delete it to have it made again") from error
        return shards

    def read(self, index: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return the pairs of these numbers."""
        names = self.shards[0].keys()
        return {name: torch.stack([self.shards[i // SHARD][name][i % SHARD] for i in index]) for name in names}

    def batch(self, rows: dict[str, Tensor], index: NDArray[np.int64], draw: Draw) -> Batch:
        """Return our part of the pairs: each with its own noise and condition."""
        ours = {name: tensor[draw.rows].to(draw.device) for name, tensor in rows.items()}
        condition: Condition = ours.get("label")
        if "row" in ours:
            condition = to(self.data.condition(rows["row"][draw.rows].numpy()), draw.device)
        return Batch(x1=ours["x1"], x0=ours["x0"], condition=condition)


def paths(folder: Path, num: int) -> list[Path]:
    """Return the files that hold ``num`` pairs."""
    return [folder / f"pairs-{shard:05d}.safetensors" for shard in range(-(-num // SHARD))]


def make_pairs(
    state: State,
    data: DataExamples,
    pairs: Pairs,
    folder: Path,
    *,
    say: Callable[[str], None],
    stop: Callable[[], bool],
) -> PairExamples | None:
    """Make the pairs that are not there yet, by the state's teacher; None when ``stop`` said so in between.

    Conditions come as often as the data has them. Raises RunError when a file cannot be written, the samples are not
    finite, or the folder holds pairs of another teacher.
    """
    assert state.teacher is not None
    how = {
        **asdict(pairs),
        "shard": SHARD,
        "seed": state.config.training.seed,
        "data": state.facts.fingerprint,
        "teacher": digest(state.teacher),
    }
    try:
        begin(folder, how)
        for shard, path in enumerate(paths(folder, pairs.num)):
            if path.exists():
                continue
            if stop():
                return None
            rows = min(SHARD, pairs.num - shard * SHARD)
            files.write_bytes(path, save(make_shard(state, data, pairs, shard, rows)))
            say(f"pairs: {shard * SHARD + rows:,} of {pairs.num:,}")
    except OSError as error:
        raise RunError(f"cannot write pairs to {folder}: {reason(error)}") from error
    return PairExamples(folder, pairs.num, data)


def begin(folder: Path, how: dict[str, Any]) -> None:
    """Say in the folder how its pairs are made. Raises RunError when it says otherwise already."""
    path = folder / "pairs.json"
    if path.exists() and json.loads(path.read_text()) != how:
        raise RunError(f"{folder} holds pairs that were made otherwise, or by another teacher: delete it to go on")
    files.write_text(path, json.dumps(how, indent=2) + "\n")


@torch.no_grad()
def make_shard(state: State, data: DataExamples, pairs: Pairs, shard: int, rows: int) -> dict[str, Tensor]:
    """Return the pairs of one file: x0, x1, and the rows or labels of conditional data."""
    teacher = state.networks.teacher
    assert teacher is not None
    size = state.config.training.batch
    numbers = range(shard * SHARD, shard * SHARD + rows)
    x0 = torch.stack([state.keys.normal(i, "pairs", state.facts.shape) for i in numbers])
    condition: Condition = None
    stored: dict[str, Tensor] = {}
    if state.facts.conditions:
        row = batch_indices(len(data), SHARD, shard, state.keys)[:rows]
        condition = data.condition(row)
        label = data.dataset.conditions.class_label(condition)
        single = data.dataset.conditions.single
        stored = {"label": label} if label is not None and single else {"row": torch.from_numpy(row)}
    done = []
    for first in range(0, rows, size):
        part = slice(first, first + size)
        with state.autocast():
            x1 = sample(
                teacher,
                x0[part].to(state.device),
                steps=instantaneous_schedule(pairs.steps),
                condition=to(some(condition, part), state.device),
                guidance=pairs.guidance,
            )
        done.append(x1.float().cpu())
    x1 = torch.cat(done)
    if not bool(torch.isfinite(x1).all()):
        raise RunError(f"stopped at step {state.step}: the teacher's samples are not finite, no pairs can be made")
    return {"x0": x0, "x1": x1, **stored}


def digest(network: torch.nn.Module) -> str:
    """Return a hash of a network's parameters."""
    total = hashlib.blake2b(digest_size=8)
    for name, tensor in network.state_dict().items():
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
