"""The released shortcut models' parameters <-> ours.

Theirs are Flax names joined by ``/``, with linear kernels stored (in, out) and convolutions (height, width, in, out).
Their three attention kernels k, q, v are one matrix here, stacked q, k, v. Their unused log-variance head is dropped.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anystep.flow.condition import class_labels
from anystep.networks.dit import DiT, DiTConfig

Array = np.ndarray[Any, Any]

#: Attention heads by width. Shapes do not tell them: q, k and v are hidden x hidden whatever the heads. These are the
#: published widths (S, B, L, XL), then the tiny ones of our parity fixtures.
KNOWN_HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16, 16: 2, 32: 2, 64: 4}

#: Their log-variance head, which nothing reads.
UNUSED = "Embed_0/embedding"

_PATCH_KERNEL = "PatchEmbed_0/Conv_0/kernel"
_LABEL_TABLE = "LabelEmbedder_0/Embed_0/embedding"
_MLP_KERNEL = "DiTBlock_0/MlpBlock_0/Dense_0/kernel"
_AXES = {_PATCH_KERNEL: 4, _LABEL_TABLE: 2, _MLP_KERNEL: 2}
_LISTED = 6


@dataclass(frozen=True)
class Leaf:
    """One array of theirs: its name, the parameter of ours that holds it, and which third of it (q, k, v) it is."""

    theirs: str
    ours: str
    third: int | None = None

    def part(self, value: Tensor) -> Tensor:
        """Return the part of our tensor that this leaf is: a view, in our layout."""
        return value if self.third is None else value.chunk(3)[self.third]

    def to_theirs(self, value: Tensor) -> Tensor:
        """Return a part of ours in their layout."""
        if not self.theirs.endswith("kernel"):
            return value
        return value.permute(2, 3, 1, 0) if value.ndim == 4 else value.mT

    def to_ours(self, value: Tensor) -> Tensor:
        """Return their array in our layout."""
        if not self.theirs.endswith("kernel"):
            return value
        return value.permute(3, 2, 0, 1) if value.ndim == 4 else value.mT


def leaves(depth: int) -> Iterator[Leaf]:
    """Yield every leaf of a model of ``depth`` blocks."""

    def layer(theirs: str, ours: str, third: int | None = None) -> Iterator[Leaf]:
        yield Leaf(f"{theirs}/kernel", f"{ours}.weight", third)
        yield Leaf(f"{theirs}/bias", f"{ours}.bias", third)

    yield from layer("PatchEmbed_0/Conv_0", "patch_embed")
    for embedder, ours in (("TimestepEmbedder_0", "time"), ("TimestepEmbedder_1", "step")):
        yield from layer(f"{embedder}/Dense_0", f"condition.{ours}.inner")
        yield from layer(f"{embedder}/Dense_1", f"condition.{ours}.outer")
    yield Leaf(_LABEL_TABLE, "condition.label.weight")
    for n in range(depth):
        theirs, ours = f"DiTBlock_{n}", f"blocks.{n}"
        yield from layer(f"{theirs}/Dense_0", f"{ours}.modulation")
        yield from layer(f"{theirs}/Dense_1", f"{ours}.attention.qkv", third=1)  # k
        yield from layer(f"{theirs}/Dense_2", f"{ours}.attention.qkv", third=0)  # q
        yield from layer(f"{theirs}/Dense_3", f"{ours}.attention.qkv", third=2)  # v
        yield from layer(f"{theirs}/Dense_4", f"{ours}.attention.out")
        yield from layer(f"{theirs}/MlpBlock_0/Dense_0", f"{ours}.mlp.inner")
        yield from layer(f"{theirs}/MlpBlock_0/Dense_1", f"{ours}.mlp.outer")
    yield from layer("FinalLayer_0/Dense_0", "final.modulation")
    yield from layer("FinalLayer_0/Dense_1", "final.linear")


def network_from_params(
    params: Mapping[str, Array], *, heads: int | None = None, size: tuple[int, int] = (32, 32)
) -> DiT:
    """Return the network that the released code builds from ``params``, in float32.

    ``params`` maps flat names to arrays; width, depth, MLP ratio, patch, channels and classes are read off the shapes.
    ``heads`` are known for the published widths (`KNOWN_HEADS`) and must be given for others. ``size`` is the image
    (height, width) that the network names as its own; no weight depends on it, and it takes others too.
    Raises ValueError naming arrays that are missing, unexpected or of the wrong shape.
    """
    config, channels, classes = _architecture(params, heads)
    network = config.build((channels, *size), class_labels(classes))
    ours = dict(network.named_parameters())
    table = list(leaves(config.depth))
    expected = {leaf.theirs: tuple(leaf.to_theirs(leaf.part(ours[leaf.ours])).shape) for leaf in table}
    _refuse("missing arrays", [name for name in expected if name not in params])
    _refuse("unexpected arrays", [name for name in params if name not in expected and name != UNUSED])
    _refuse(
        "wrong shapes",
        [
            f"{name} is {params[name].shape}, expected {shape}"
            for name, shape in expected.items()
            if params[name].shape != shape
        ],
    )
    with torch.no_grad():
        for leaf in table:
            array = torch.from_numpy(np.array(params[leaf.theirs], dtype=np.float32))
            leaf.part(ours[leaf.ours]).copy_(leaf.to_ours(array))
    return network


def reference_params(network: DiT, values: Mapping[str, Tensor] | None = None) -> dict[str, Array]:
    """Return the network's parameters under their names and in their layout: the inverse of `network_from_params`.

    ``values`` may hold other tensors under our parameter names, gradients for instance. Their unused head is not made.
    Raises ValueError for a network that their code cannot express.
    """
    config = network.config
    if config.variant != "reference" or config.step_encoding != "log2" or network.conditions.num_classes is None:
        raise ValueError(
            'only a class-conditional DiT with variant "reference" and step_encoding "log2" has their names'
        )
    tensors = dict(network.named_parameters()) if values is None else values
    return {
        leaf.theirs: leaf.to_theirs(leaf.part(tensors[leaf.ours])).detach().cpu().numpy().copy()
        for leaf in leaves(config.depth)
    }


def _architecture(params: Mapping[str, Array], heads: int | None) -> tuple[DiTConfig, int, int]:
    """Return the configuration, the channels and the classes that the shapes tell."""
    _refuse("missing arrays", [name for name in _AXES if name not in params])
    _refuse(
        "wrong shapes",
        [f"{name} is {params[name].shape}, expected {n} axes" for name, n in _AXES.items() if params[name].ndim != n],
    )
    patch, _, channels, hidden = params[_PATCH_KERNEL].shape
    blocks = {int(found[1]) for name in params if (found := re.match(r"DiTBlock_(\d+)/", name))}
    heads = heads or KNOWN_HEADS.get(hidden)
    if heads is None:
        known = ", ".join(f"{width}: {n}" for width, n in sorted(KNOWN_HEADS.items()))
        raise ValueError(f"width {hidden} does not tell the number of heads (known: {known}): pass heads")
    config = DiTConfig(
        hidden=hidden,
        depth=max(blocks) + 1,
        heads=heads,
        patch=patch,
        mlp_ratio=params[_MLP_KERNEL].shape[1] / hidden,
        variant="reference",
    )
    return config, channels, params[_LABEL_TABLE].shape[0] - 1


def _refuse(what: str, which: list[str]) -> None:
    """Raise ValueError listing ``which`` (the first few), unless there are none."""
    if which:
        more = f" and {len(which) - _LISTED} more" if len(which) > _LISTED else ""
        raise ValueError(f"not the parameters of a released shortcut model: {what}: {'; '.join(which[:_LISTED])}{more}")
