"""What a finished run determines, whether two runs agree on it bit for bit, and how one is stopped on the way."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from anystep.run import checkpoint
from anystep.training import update
from anystep.training.signals import StopRequest


def contents(run: Path) -> dict[str, object]:
    """Tensors of the last checkpoint and of every stored average, their values, the log's bytes."""
    last = checkpoint.listing(run / "checkpoints")[-1][1]
    copies = [path for _, path in checkpoint.listing(run / "profiles")]
    files = sorted(file for path in (last, *copies) for file in path.glob("*.safetensors"))
    tensors = {f"{file.relative_to(run)}:{k}": v for file in files for k, v in load_file(file).items()}
    state = [(path / "state.json").read_text() for path in (last, *copies)]
    return {"tensors": tensors, "state": state, "log": (run / "log.jsonl").read_bytes()}


def assert_same(one: Path, other: Path) -> None:
    a, b = contents(one), contents(other)
    assert a["log"] == b["log"]
    assert a["state"] == b["state"]
    assert_same_tensors(one, other)


def assert_same_tensors(one: Path, other: Path) -> None:
    """Networks, averages and moments alone: logs and counts differ where a run was made longer."""
    a, b = contents(one)["tensors"], contents(other)["tensors"]
    assert isinstance(a, dict) and isinstance(b, dict)
    assert a.keys() == b.keys()
    different = [name for name, tensor in a.items() if not torch.equal(tensor, b[name])]
    assert not different


def kept_gradients(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """A list that gets the gradient of each update to come, flat, before it is clipped."""
    gradients: list[Tensor] = []
    norm = update.get_total_norm

    def kept(tensors: list[Tensor]) -> Tensor:
        gradients.append(torch.cat([tensor.flatten().clone() for tensor in tensors]))
        return norm(tensors)

    monkeypatch.setattr(update, "get_total_norm", kept)
    return gradients


def stopping(at: int) -> tuple[StopRequest, Callable[[int, object], None]]:
    """What stops a run after update ``at``: a signal that comes while it is made, and the watch that sends it."""
    stop = StopRequest()
    if at == 1:
        stop.signal = signal.SIGTERM

    def watch(step: int, record: object) -> None:
        if step == at - 1:
            stop.signal = signal.SIGTERM

    return stop, watch
