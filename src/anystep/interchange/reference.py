"""Read the parameters of the released shortcut models (Frans et al. 2024).

Their names are Flax's, joined by ``/``. Linear kernels are (in, out), convolutions (height, width, in, out). Their
attention kernels k, q, v are one matrix here, stacked q, k, v. Their log-variance head is ignored: nothing reads it.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anystep.flow.condition import class_labels
from anystep.networks.dit import DiT, DiTConfig

Array = np.ndarray[Any, Any]

#: Attention heads by width, which shapes do not determine: q, k and v are hidden x hidden for any number of heads. The
#: published widths (S, B, L, XL), then the tiny ones of our parity fixtures.
KNOWN_HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16, 16: 2, 32: 2, 64: 4}

#: the log-variance head
UNUSED = "Embed_0/embedding"

_PATCH_KERNEL = "PatchEmbed_0/Conv_0/kernel"
_LABEL_TABLE = "LabelEmbedder_0/Embed_0/embedding"
_MLP_KERNEL = "DiTBlock_0/MlpBlock_0/Dense_0/kernel"


def network_from_params(
    params: Mapping[str, Array], *, heads: int | None = None, size: tuple[int, int] = (32, 32)
) -> DiT:
    """Return the network that the released code builds from ``params``, in float32.

    ``params`` maps flat names to arrays; their shapes determine width, depth, MLP ratio, patch, channels and classes.
    ``heads`` is known for the published widths (`KNOWN_HEADS`) and required for others. ``size`` is the image size
    (height, width) that the network is built for; it accepts others too, as no weight depends on it.
    Raises ValueError that names arrays which are missing, unexpected or of the wrong shape.
    """
    config, channels, classes = _architecture(params, heads)
    network = config.build((channels, *size), class_labels(classes))
    views = released_views(network.state_dict(), config.depth)
    _reject("missing arrays", [name for name in views if name not in params])
    _reject("unexpected arrays", [name for name in params if name not in views and name != UNUSED])
    wrong = [name for name, view in views.items() if params[name].shape != view.shape]
    _reject("wrong shapes", [f"{name} is {params[name].shape}, expected {tuple(views[name].shape)}" for name in wrong])
    for name, view in views.items():
        view.copy_(torch.from_numpy(np.array(params[name], dtype=np.float32)))
    return network


def released_views(tensors: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Return views of a DiT's tensors by the released names and in the released layout.

    ``tensors`` are parameters, or their gradients, by our names, of a network with ``depth`` blocks.
    """
    views = {_LABEL_TABLE: tensors["condition.label.weight"]}

    def add(theirs: str, ours: str, third: int | None = None) -> None:
        weight, bias = tensors[f"{ours}.weight"], tensors[f"{ours}.bias"]
        if third is not None:
            weight, bias = weight.chunk(3)[third], bias.chunk(3)[third]
        views[f"{theirs}/kernel"] = weight.permute(2, 3, 1, 0) if weight.ndim == 4 else weight.mT
        views[f"{theirs}/bias"] = bias

    add("PatchEmbed_0/Conv_0", "patch_embed")
    for embedder, ours in (("TimestepEmbedder_0", "time"), ("TimestepEmbedder_1", "step")):
        add(f"{embedder}/Dense_0", f"condition.{ours}.inner")
        add(f"{embedder}/Dense_1", f"condition.{ours}.outer")
    for n in range(depth):
        theirs, ours = f"DiTBlock_{n}", f"blocks.{n}"
        add(f"{theirs}/Dense_0", f"{ours}.modulation")
        add(f"{theirs}/Dense_1", f"{ours}.attention.qkv", third=1)  # k
        add(f"{theirs}/Dense_2", f"{ours}.attention.qkv", third=0)  # q
        add(f"{theirs}/Dense_3", f"{ours}.attention.qkv", third=2)  # v
        add(f"{theirs}/Dense_4", f"{ours}.attention.out")
        add(f"{theirs}/MlpBlock_0/Dense_0", f"{ours}.mlp.inner")
        add(f"{theirs}/MlpBlock_0/Dense_1", f"{ours}.mlp.outer")
    add("FinalLayer_0/Dense_0", "final.modulation")
    add("FinalLayer_0/Dense_1", "final.linear")
    return views


def _architecture(params: Mapping[str, Array], heads: int | None) -> tuple[DiTConfig, int, int]:
    """Return the configuration, the channels and the classes that the shapes determine."""
    axes = {_PATCH_KERNEL: 4, _LABEL_TABLE: 2, _MLP_KERNEL: 2}
    _reject("missing arrays", [name for name in axes if name not in params])
    wrong = [name for name, n in axes.items() if params[name].ndim != n]
    _reject("wrong shapes", [f"{name} is {params[name].shape}, expected {axes[name]} axes" for name in wrong])
    patch, _, channels, hidden = params[_PATCH_KERNEL].shape
    heads = heads or KNOWN_HEADS.get(hidden)
    if heads is None:
        known = ", ".join(f"{width}: {n}" for width, n in sorted(KNOWN_HEADS.items()))
        raise ValueError(f"width {hidden} does not determine the number of heads (known: {known}): pass heads")
    config = DiTConfig(
        hidden=hidden,
        depth=1 + max(int(found[1]) for name in params if (found := re.match(r"DiTBlock_(\d+)/", name))),
        heads=heads,
        patch=patch,
        mlp_ratio=params[_MLP_KERNEL].shape[1] / hidden,
        variant="reference",
    )
    return config, channels, params[_LABEL_TABLE].shape[0] - 1


def _reject(problem: str, arrays: list[str]) -> None:
    """Raise ValueError that lists the first few of ``arrays``, unless there are none."""
    if arrays:
        listed = "; ".join(arrays[:6]) + (f" and {len(arrays) - 6} more" if len(arrays) > 6 else "")
        raise ValueError(f"not the parameters of a released shortcut model: {problem}: {listed}")
