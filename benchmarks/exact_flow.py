"""The true answer of every step, for data of a few thousand points: the flow between noise and the points.

Of noise x0 ~ N(0, I) and one of the points x1, x_t = (1 - t) x0 + t x1 has the velocity E[x1 - x0 | x_t], which is
(E[x1 | x_t] - x_t) / (1 - t); the mean has weights proportional to exp(-|x_t - t x1|^2 / 2 (1 - t)^2).
"""

from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from anystep.codecs import Codec
from anystep.core.random import Draw, Keys
from anystep.data import Source
from anystep.model.load import load

#: noises that a model's samples are compared on, and Heun steps of the exact flow
NUM, STEPS = 512, 128


def mean_point(x: Tensor, t: float, points: Tensor) -> Tensor:
    """Return E[x1 | x_t = x] of x [B, D] for points [N, D] that are equally likely, at t < 1."""
    distance = torch.cdist(x, t * points, compute_mode="donot_use_mm_for_euclid_dist").square()
    return torch.softmax(-distance / (2 * (1 - t) ** 2), dim=1) @ points


def endpoint(x0: Tensor, points: Tensor, steps: int = STEPS) -> Tensor:
    """Return where the flow takes noise x0 [B, D] at t = 1: Heun steps, and in the last the mean point."""
    x, h = x0, 1 / steps
    for i in range(steps - 1):
        t = i * h
        first = (mean_point(x, t, points) - x) / (1 - t)
        there = x + h * first
        x = x + h / 2 * (first + (mean_point(there, t + h, points) - there) / (1 - t - h))
    return mean_point(x, 1 - h, points)


@cache
def true_samples(source: Source, codec: Codec) -> Tensor:
    """Return where the flow takes the noises of the samples 0 ... `NUM` - 1 of seed 0, as a network sees examples."""
    data, keys = source.open("train"), Keys(0)
    rows = data.read(torch.arange(len(data)).numpy())
    points = codec.encode(rows, Draw(keys, 0, len(data), slice(0, len(data)))).double()
    noise = torch.stack([keys.normal(i, "sample", codec.shape()) for i in range(NUM)]).double()
    return torch.cat([endpoint(part, points) for part in noise.split(64)])


def error(source: Source, run: Path, steps: int) -> float:
    """Return the root mean squared distance between a run's samples and the flow's of the same noise.

    The unit is that of the network's space, the data's deviation.
    """
    generator = load(run)
    samples = generator.generate(steps=steps, num=NUM).double()
    return float((samples - true_samples(source, generator.codec)).square().sum(1).mean().sqrt())
