"""Recorded runs of the authors' code (kvfrans/shortcut-models, commit 6010043, MIT), in our layout.

The arrays in ``fixtures`` hold NHWC images, Flax names, and dt_base = log2(1/d); 7 is also their code for d = 0.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.toys import WithNull
from torch import Tensor

from anystep.core.random import Draw, Keys
from anystep.interchange.reference import network_from_params, released_views
from anystep.networks import DiT

FIXTURES = Path(__file__).parent / "fixtures"
ATOL = 5e-5  # float32 rounding between two frameworks
ATOL_128 = 2e-4  # after 128 steps


def load(name: str) -> dict[str, Any]:
    """Return the arrays of one fixture file by name."""
    with np.load(FIXTURES / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


def under(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the arrays whose names start with ``prefix/``, without it."""
    return {name.removeprefix(f"{prefix}/"): array for name, array in arrays.items() if name.startswith(f"{prefix}/")}


def network(arrays: Mapping[str, Any], prefix: str, side: int) -> DiT:
    """Return the network of the parameters under ``prefix``, for square images."""
    return network_from_params(under(arrays, prefix), size=(side, side))


def released(network: DiT, tensors: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
    """Return the network's parameters, or other ``tensors`` of their names, under the released names and layout."""
    views = released_views(tensors or network.state_dict(), network.config.depth)
    return {name: view.detach().numpy() for name, view in views.items()}


def image(array: Any) -> Tensor:
    """Return NHWC as NCHW."""
    return torch.from_numpy(np.array(array)).movedim(-1, 1)


def integers(array: Any) -> Tensor:
    """Return as int64."""
    return torch.from_numpy(np.array(array)).long()


def floats(array: Any) -> Tensor:
    """Return as float32."""
    return torch.from_numpy(np.array(array)).float()


def step_size(dt_base: Any) -> Tensor:
    """Return d for the reference's log2(1/d): 7 is also its code for the instantaneous velocity, our d = 0."""
    index = floats(dt_base)
    return torch.where(index == 7, 0.0, torch.exp2(-index))


def meta(arrays: Mapping[str, Any], case: str) -> dict[str, Any]:
    """Return the flags of a case."""
    flags: dict[str, Any] = json.loads(str(arrays[f"{case}/meta"]))
    return flags


class WithoutStep(WithNull, torch.nn.Module):
    """The reference's ``ignore_dt``: it feeds index 0 to the step embedder whatever d is. Index 0 is d = 1."""

    def __init__(self, inner: DiT) -> None:
        super().__init__()
        self.inner = inner
        self.num_classes = inner.conditions.num_classes

    def forward(self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None) -> Tensor:
        return self.inner(x, t, torch.ones_like(d), label)


@dataclass(frozen=True)
class RecordedDraw(Draw):
    """A draw whose uniform streams are given, so that the objective makes the choices that the reference made."""

    streams: Mapping[str, Tensor] = field(default_factory=dict)

    def uniform(self, stream: str) -> Tensor:
        return self.ours(self.streams[stream])


def recorded_draw(**streams: Tensor) -> RecordedDraw:
    """Return the draw of a whole batch on one process; raises KeyError for a stream that was not recorded."""
    total = len(next(iter(streams.values())))
    return RecordedDraw(keys=Keys(0), step=0, total=total, rows=slice(0, total), streams=streams)
