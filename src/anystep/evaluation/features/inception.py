"""The spaces of FID: features of TensorFlow's Inception-v3 of 2015-12-05, the network of the original FID.

Written without torchvision, whose network of that name has other average pools and another last block. The weights are
a file in the cache that `anystep data inception` puts there once.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, max_pool2d

from anystep.codecs import Codec, Rows
from anystep.core.errors import DataError, UsageError, misfit, reason
from anystep.data.cache import cache_folder
from anystep.evaluation.features.base import FeatureSpace

#: name of the file of weights in the cache
FILE = "inception-2015-12-05.safetensors"
#: side of the images that the network sees
SIDE = 299
#: images that pass through the network at a time
MANY = 32
#: channels of `mixed_6/conv` that spatial features are made of (Nash et al. 2021)
SPATIAL = 7
#: added to a variance in batch normalisation
EPSILON = 1e-3


def _shapes() -> dict[str, tuple[int, int, int, int]]:
    """Return every convolution's output and input channels, height and width of its kernel, by name."""
    shapes = {
        "Conv2d_1a_3x3": (32, 3, 3, 3),
        "Conv2d_2a_3x3": (32, 32, 3, 3),
        "Conv2d_2b_3x3": (64, 32, 3, 3),
        "Conv2d_3b_1x1": (80, 64, 1, 1),
        "Conv2d_4a_3x3": (192, 80, 3, 3),
    }

    def add(block: str, **branches: tuple[int, int, int, int]) -> None:
        shapes.update({f"Mixed_{block}.branch{name.removeprefix('_')}": shape for name, shape in branches.items()})

    for block, inputs, pooled in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        add(block, _1x1=(64, inputs, 1, 1), __pool=(pooled, inputs, 1, 1))
        add(block, _5x5_1=(48, inputs, 1, 1), _5x5_2=(64, 48, 5, 5))
        add(block, _3x3dbl_1=(64, inputs, 1, 1), _3x3dbl_2=(96, 64, 3, 3), _3x3dbl_3=(96, 96, 3, 3))
    add("6a", _3x3=(384, 288, 3, 3), _3x3dbl_1=(64, 288, 1, 1), _3x3dbl_2=(96, 64, 3, 3), _3x3dbl_3=(96, 96, 3, 3))
    for block, n in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        add(block, _1x1=(192, 768, 1, 1), __pool=(192, 768, 1, 1))
        add(block, _7x7_1=(n, 768, 1, 1), _7x7_2=(n, n, 1, 7), _7x7_3=(192, n, 7, 1))
        add(block, _7x7dbl_1=(n, 768, 1, 1), _7x7dbl_2=(n, n, 7, 1), _7x7dbl_3=(n, n, 1, 7))
        add(block, _7x7dbl_4=(n, n, 7, 1), _7x7dbl_5=(192, n, 1, 7))
    add("7a", _3x3_1=(192, 768, 1, 1), _3x3_2=(320, 192, 3, 3))
    add("7a", _7x7x3_1=(192, 768, 1, 1), _7x7x3_2=(192, 192, 1, 7), _7x7x3_3=(192, 192, 7, 1))
    add("7a", _7x7x3_4=(192, 192, 3, 3))
    for block, inputs in (("7b", 1280), ("7c", 2048)):
        add(block, _1x1=(320, inputs, 1, 1), __pool=(192, inputs, 1, 1))
        add(block, _3x3_1=(384, inputs, 1, 1), _3x3_2a=(384, 384, 1, 3), _3x3_2b=(384, 384, 3, 1))
        add(block, _3x3dbl_1=(448, inputs, 1, 1), _3x3dbl_2=(384, 448, 3, 3))
        add(block, _3x3dbl_3a=(384, 384, 1, 3), _3x3dbl_3b=(384, 384, 3, 1))
    return shapes


#: names as in torchvision and pytorch-fid
SHAPES = _shapes()


class Inception:
    """The network up to its last pooling, batch normalisation folded into the convolutions."""

    def __init__(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        """``tensors``: NAME.conv.weight, NAME.bn.bias, .running_mean and .running_var for the names of `SHAPES`.

        Raises ValueError for missing tensors and other shapes.
        """
        self.units: dict[str, tuple[Tensor, Tensor]] = {}
        for name, shape in SHAPES.items():
            weight = _checked(tensors, f"{name}.conv.weight", shape)
            statistics = ("bias", "running_mean", "running_var")
            shift, mean, variance = (_checked(tensors, f"{name}.bn.{part}", shape[:1]) for part in statistics)
            scale = (variance + EPSILON).rsqrt()
            folded = weight * scale[:, None, None, None]
            self.units[name] = (
                folded.float().to(device, memory_format=torch.channels_last),
                (shift - mean * scale).float().to(device),
            )

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [B, 2048] and spatial features [B, 2023] of images [B, 3, 299, 299] in [-1, 1]."""
        x = self.unit("Conv2d_1a_3x3", x.contiguous(memory_format=torch.channels_last), stride=2)
        x = self.unit("Conv2d_2b_3x3", self.unit("Conv2d_2a_3x3", x, padded=False))
        x = self.unit("Conv2d_3b_1x1", max_pool2d(x, 3, 2))
        x = max_pool2d(self.unit("Conv2d_4a_3x3", x, padded=False), 3, 2)
        for name in ("5b", "5c", "5d"):
            x = self.parallel(name, x, "1x1", "5x5_1 5x5_2", "3x3dbl_1 3x3dbl_2 3x3dbl_3")
        x = self.reduced("6a", x, "3x3", "3x3dbl_1 3x3dbl_2 3x3dbl_3")
        outputs = {}
        for name in ("6b", "6c", "6d", "6e"):
            x = self.parallel(name, x, "1x1", "7x7_1 7x7_2 7x7_3", "7x7dbl_1 7x7dbl_2 7x7dbl_3 7x7dbl_4 7x7dbl_5")
            outputs[name] = x
        spatial = outputs["6d"][:, :SPATIAL]  # of its first branch, mixed_6/conv in the graph
        x = self.reduced("7a", x, "3x3_1 3x3_2", "7x7x3_1 7x7x3_2 7x7x3_3 7x7x3_4")
        for name in ("7b", "7c"):
            x = self.widened(name, x)
        return x.mean((2, 3)), spatial.flatten(1)

    def unit(self, name: str, x: Tensor, stride: int = 1, padded: bool = True) -> Tensor:
        """Return a convolution with ReLU; ``padded`` keeps height and width at stride 1."""
        weight, bias = self.units[name]
        height, width = weight.shape[2:] if padded and stride == 1 else (1, 1)
        return conv2d(x, weight, bias, stride, (height // 2, width // 2)).relu()

    def chain(self, block: str, x: Tensor, names: str, stride: int = 1) -> Tensor:
        """Return units one after the other, the last with ``stride``."""
        units = [f"Mixed_{block}.branch{name}" for name in names.split()]
        for name in units[:-1]:
            x = self.unit(name, x)
        return self.unit(units[-1], x, stride)

    def parallel(self, block: str, x: Tensor, *chains: str) -> Tensor:
        """Return chains side by side, and a unit after a mean."""
        parts = [self.chain(block, x, names) for names in chains]
        return torch.cat([*parts, self.unit(f"Mixed_{block}.branch_pool", average(x))], 1)

    def reduced(self, block: str, x: Tensor, *chains: str) -> Tensor:
        """Return chains side by side, and a maximum, at half the height and width."""
        return torch.cat([*(self.chain(block, x, names, stride=2) for names in chains), max_pool2d(x, 3, 2)], 1)

    def widened(self, block: str, x: Tensor) -> Tensor:
        """Return a block of the last kind; the pool of the very last is a maximum, as in the graph of 2015."""
        three = self.chain(block, x, "3x3_1")
        double = self.chain(block, x, "3x3dbl_1 3x3dbl_2")
        pooled = max_pool2d(x, 3, 1, 1) if block == "7c" else average(x)
        parts = [self.chain(block, x, "1x1")]
        parts += [self.chain(block, three, name) for name in ("3x3_2a", "3x3_2b")]
        parts += [self.chain(block, double, name) for name in ("3x3dbl_3a", "3x3dbl_3b")]
        return torch.cat([*parts, self.unit(f"Mixed_{block}.branch_pool", pooled)], 1)


def average(x: Tensor) -> Tensor:
    """Return the mean of 3 x 3 pixels; at an edge, of those that exist."""
    return avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _checked(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor in float64. Raises ValueError if it is missing or has another shape."""
    if name not in tensors:
        raise ValueError(f"no tensor {name}")
    if tuple(tensors[name].shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensors[name].shape)} instead of {shape}")
    return tensors[name].double()


#: how images become 299 x 299 numbers: "standard" as clean-fid, "paper" as the code of Frans et al. 2024
Protocol = Literal["standard", "paper"]


def to_network(rows: Rows, protocol: Protocol, side: int = SIDE) -> Tensor:
    """Return images [B, H, W, C] in grey levels, 0 to 255, as the network sees them, [B, 3, side, side] in [-1, 1].

    "standard": bicubic with antialiasing, not rounded again; then (x - 128) / 128, as in the graph of 2015. "paper":
    x / 127.5 - 1, bilinear without antialiasing, cut off at -1 and 1. Grey images get three equal channels.
    """
    x = rows.permute(0, 3, 1, 2).float()
    x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
    if protocol == "paper":
        return interpolate(x / 127.5 - 1, (side, side), mode="bilinear", align_corners=False).clamp(-1, 1)
    if x.shape[2:] != (side, side):
        x = interpolate(x, (side, side), mode="bicubic", align_corners=False, antialias=True)
    return (x - 128) / 128


@dataclass(frozen=True)
class InceptionFeatures:
    """Features of images by the weights with a hash, and spatial ones."""

    version: str
    protocol: Protocol
    device: torch.device
    network: Inception = field(compare=False, repr=False)

    @torch.no_grad()
    def __call__(self, rows: Rows) -> Mapping[str, NDArray[Any]]:
        """Return float32 "features" [n, 2048] and "spatial" [n, 2023] of images [n, H, W, C], 0 to 255."""
        some = (rows[start : start + MANY].to(self.device) for start in range(0, len(rows), MANY))
        parts = [self.network(to_network(images, self.protocol)) for images in some]
        features, spatial = (torch.cat(each).cpu().numpy() for each in zip(*parts, strict=True))
        return {"features": features, "spatial": spatial}


def weights_path() -> Path:
    """Return where the weights are, or will be."""
    return cache_folder() / FILE


@cache
def read_network(path: Path, modified: int, device: torch.device) -> tuple[str, Inception]:
    """Return the SHA-256 of a file of weights, and its network; ``modified``, its time, tells another file apart.

    Raises OSError, and DataError for weights of another network.
    """
    content = path.read_bytes()
    try:
        return hashlib.sha256(content).hexdigest(), Inception(load(content), device)
    except (SafetensorError, ValueError) as error:
        raise DataError(f"{path}: not the weights of this Inception-v3 ({misfit(error)})") from error


def inception_space(
    codec: Codec,
    shape: tuple[int, ...],
    device: torch.device,
    protocol: Protocol = "standard",
    output: str = "features",
) -> FeatureSpace:
    """Return the space for images of a shape. Raises UsageError for other data and without weights, DataError."""
    if codec.looks != "picture" or shape[0] not in {1, 3}:
        raise UsageError(f"Inception features are for grey and colour images, and examples here have shape {shape}")
    path = weights_path()
    if not path.is_file():
        raise UsageError("Inception features need the network's weights, once: anystep data inception")
    try:
        version, network = read_network(path, path.stat().st_mtime_ns, device)
    except OSError as error:
        raise DataError(f"{path}: {reason(error)}") from error
    extractor = InceptionFeatures(version, protocol, device, network)
    kind = "bicubic, antialiased" if protocol == "standard" else "bilinear, not antialiased"
    name = f"inception_2015{'' if output == 'features' else f'_{output}'}"
    resize = f"{kind}, {shape[1]}x{shape[2]} to {SIDE}x{SIDE}"
    return FeatureSpace(name, extractor, output, resize, version, rounded=protocol == "standard")


def paper_space(codec: Codec, shape: tuple[int, ...], device: torch.device) -> FeatureSpace:
    """Return the space of the protocol "paper": samples are not rounded, and small images not antialiased."""
    return inception_space(codec, shape, device, "paper")


def spatial_space(codec: Codec, shape: tuple[int, ...], device: torch.device) -> FeatureSpace:
    """Return the space of spatial features: 7 channels of 17 x 17 in the middle of the network (Nash et al. 2021)."""
    return inception_space(codec, shape, device, output="spatial")
