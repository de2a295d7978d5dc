"""What a finished run determines, and whether two runs agree on it bit for bit."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from anystep.training import checkpoint


def contents(run: Path) -> dict[str, object]:
    """Tensors of the last checkpoint, its values, the log's bytes."""
    last = checkpoint.listing(run / "checkpoints")[-1][1]
    tensors = {f"{file.name}:{k}": v for file in sorted(last.glob("*.safetensors")) for k, v in load_file(file).items()}
    return {"tensors": tensors, "state": (last / "state.json").read_text(), "log": (run / "log.jsonl").read_bytes()}


def assert_same(one: Path, other: Path) -> None:
    a, b = contents(one), contents(other)
    assert a["log"] == b["log"]
    assert a["state"] == b["state"]
    assert isinstance(a["tensors"], dict) and isinstance(b["tensors"], dict)
    assert a["tensors"].keys() == b["tensors"].keys()
    different = [name for name, tensor in a["tensors"].items() if not torch.equal(tensor, b["tensors"][name])]
    assert not different
