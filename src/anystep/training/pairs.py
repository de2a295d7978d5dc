"""Pairs of noise and the data that a teacher integrates it to, for reflow: generated once, stored in sharded files.

``pairs/pairs.json`` describes how they were generated. ``pairs/pairs-00000.safetensors`` contains x0, x1 (float32
[n, ...], in network space) and, of conditional data, row (int64 [n]), the number of the example whose condition the
pair has; with class labels alone label (int64 [n]) instead. The noise of pair i depends on (keys, i), the conditions of
a file on (keys, its number, the data), and x1 on these and the teacher. A file appears atomically, so that the
generation can be stopped at any time and resumed.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from anystep.core import files
from anystep.core.errors import RunError, reason
from anystep.data import batch_indices
from anystep.flow.condition import Condition, rows, to
from anystep.flow.ladder import instantaneous_schedule
from anystep.flow.sampling import sample
from anystep.objectives import Batch, Draw
from anystep.objectives.base import Pairs
from anystep.training.examples import DataExamples
from anystep.training.signals import StopRequest
from anystep.training.state import State

#: pairs per file
SHARD = 1024


@dataclass(frozen=True)
class PairExamples:
    """The pairs in a folder, to train on. Raises RunError that names a file which is missing or damaged."""

    folder: Path
    num: int
    data: DataExamples

    def __len__(self) -> int:
        return self.num

    @property
    def paths(self) -> list[Path]:
        """The files."""
        return [self.folder / f"pairs-{shard:05d}.safetensors" for shard in range(-(-self.num // SHARD))]

    @cached_property
    def shards(self) -> list[dict[str, Tensor]]:
        """The content of every file, mapped into memory."""
        shards = []
        for path in self.paths:
            try:
                shards.append(load_file(path))
            except (OSError, SafetensorError) as error:
                raise RunError(f"cannot read {path}: {reason(error)}; delete it to generate it again") from error
        return shards

    def batch(self, index: NDArray[np.int64], draw: Draw) -> Batch:
        """Return our part of the pairs: each with its own noise and condition."""
        ours = {
            name: torch.stack([self.shards[i // SHARD][name][i % SHARD] for i in index[draw.rows]])
            for name in self.shards[0]
        }
        condition: Condition = self.data.condition(ours["row"].numpy()) if "row" in ours else ours.get("label")
        return Batch(ours["x1"].to(draw.device), ours["x0"].to(draw.device), to(condition, draw.device))


def make_pairs(
    state: State, data: DataExamples, pairs: Pairs, folder: Path, *, say: Callable[[str], None], stop: StopRequest
) -> PairExamples | None:
    """Generate the missing pairs with the state's teacher; returns None if the run was requested to stop.

    Conditions are as frequent as in the data. Raises RunError when a file cannot be written, the samples are not
    finite, or the folder contains pairs of another teacher.
    """
    assert state.teacher is not None
    how = {
        **asdict(pairs),
        "shard": SHARD,
        "seed": state.config.training.seed,
        "data": state.facts.fingerprint,
        "teacher": digest(state.teacher),
    }
    examples, manifest = PairExamples(folder, pairs.num, data), folder / "pairs.json"
    try:
        if manifest.exists() and json.loads(manifest.read_text()) != how:
            raise RunError(f"{folder} has pairs of another teacher or other options: delete it to continue")
        files.write_text(manifest, json.dumps(how, indent=2) + "\n")
        for shard, path in enumerate(examples.paths):
            if path.exists():
                continue
            if stop.signal is not None:
                return None
            numbers = range(shard * SHARD, min((shard + 1) * SHARD, pairs.num))
            files.write_bytes(path, save(make_shard(state, data, pairs, shard, numbers)))
            say(f"pairs: {numbers.stop:,} of {pairs.num:,}")
    except OSError as error:
        raise RunError(f"cannot write pairs to {folder}: {reason(error)}") from error
    return examples


@torch.no_grad()
def make_shard(state: State, data: DataExamples, pairs: Pairs, shard: int, numbers: range) -> dict[str, Tensor]:
    """Return the pairs of one file: x0, x1, and the rows or labels of conditional data."""
    teacher = state.networks.teacher
    assert teacher is not None
    x0 = torch.stack([state.keys.normal(i, "pairs", state.facts.shape) for i in numbers])
    condition: Condition = None
    stored = {"x0": x0}
    if state.facts.conditions:
        row = batch_indices(len(data), SHARD, shard, state.keys)[: len(numbers)]
        condition = data.condition(row)
        label, single = data.dataset.conditions.class_label(condition), data.dataset.conditions.single
        stored |= {"label": label} if label is not None and single else {"row": torch.from_numpy(row)}
    done, size = [], state.config.training.batch
    for first in range(0, len(numbers), size):
        part = slice(first, first + size)
        with state.autocast():
            x1 = sample(
                teacher,
                x0[part].to(state.device),
                steps=instantaneous_schedule(pairs.steps),
                condition=to(rows(condition, part), state.device),
                guidance=pairs.guidance,
            )
        done.append(x1.float().cpu())
    x1 = torch.cat(done)
    if not bool(torch.isfinite(x1).all()):
        raise RunError(f"stopped at step {state.step}: the teacher's samples are not finite, no pairs can be generated")
    return stored | {"x1": x1}


def digest(network: torch.nn.Module) -> str:
    """Return a hash of a network's parameters."""
    total = hashlib.blake2b(digest_size=8)
    for name, tensor in network.state_dict().items():
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
