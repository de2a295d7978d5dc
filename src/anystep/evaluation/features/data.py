"""The space `data`: examples as the network sees them, in their normalised form. Nothing is downloaded.

Right for small images and for vectors; a distance between raw pixels is of little use for large photographs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch.nn.functional import avg_pool2d

from anystep.codecs import Codec, Rows
from anystep.evaluation.features.base import FeatureSpace

#: a covariance of as many features is 128 MiB in float64, and its eigenvalues take seconds
MOST_FEATURES = 4096


@dataclass(frozen=True)
class Normalised:
    """The normalised example, flattened; images averaged over squares of ``factor`` by ``factor`` pixels first."""

    codec: Codec
    factor: int = 1

    def __call__(self, rows: Rows) -> Mapping[str, NDArray[Any]]:
        """Return float64 [n, F], F = C H W / factor^2 or D, as "features"."""
        x = self.codec.normalised(rows)
        if self.factor > 1:
            x = avg_pool2d(x, self.factor)
        return {"features": x.flatten(1).double().cpu().numpy()}


def data_space(codec: Codec, shape: tuple[int, ...], device: torch.device) -> FeatureSpace:
    """Return the space for examples of a shape: vectors are "columns", images "raw_pixels" or "averaged_pixels".

    Images of more than 4,096 values are averaged over the smallest squares that divide both sides and leave at most
    that many.
    """
    if len(shape) != 3:
        return FeatureSpace("columns", Normalised(codec))
    _, height, width = shape
    common = math.gcd(height, width)
    fits = (n for n in range(1, common) if common % n == 0 and math.prod(shape) <= MOST_FEATURES * n**2)
    factor = next(fits, common)
    if factor == 1:
        return FeatureSpace("raw_pixels", Normalised(codec))
    resize = f"area {height}x{width} to {height // factor}x{width // factor}"
    return FeatureSpace("averaged_pixels", Normalised(codec, factor), resize=resize)
