"""The space `data`: examples as the network sees them, in their normalised form. Nothing is downloaded.

Right for small images and for vectors; a distance between raw pixels is of little use for large photographs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import avg_pool2d

from anystep.data.base import Normalization
from anystep.evaluation.features.base import FeatureSpace, Stored

#: a covariance of as many features is 128 MiB in float64, and its eigenvalues take seconds
MOST_FEATURES = 4096


@dataclass(frozen=True)
class Normalised:
    """The normalised example, flattened; images averaged over squares of ``factor`` by ``factor`` pixels first."""

    normalization: Normalization
    factor: int = 1

    def __call__(self, stored: Stored) -> Mapping[str, NDArray[np.float64]]:
        """Return float64 [n, F], F = C H W / factor^2 or D, as "features"."""
        x = self.normalization.encode(stored)
        if self.factor > 1:
            x = avg_pool2d(x, self.factor)
        return {"features": x.flatten(1).double().cpu().numpy()}


def build(
    normalization: Normalization, shape: tuple[int, ...], device: torch.device, most: int = MOST_FEATURES
) -> FeatureSpace:
    """Return the space for examples of a shape: vectors are "columns", images "raw_pixels" or "averaged_pixels".

    Images of more than ``most`` values are averaged over the smallest squares that divide both sides and leave at most
    that many.
    """
    if len(shape) != 3:
        return FeatureSpace("columns", Normalised(normalization))
    if math.prod(shape) <= most:
        return FeatureSpace("raw_pixels", Normalised(normalization))
    _, height, width = shape
    common = math.gcd(height, width)
    factors = [n for n in range(1, common + 1) if common % n == 0]
    factor = next((n for n in factors if math.prod(shape) // n**2 <= most), common)
    resize = f"area {height}x{width} to {height // factor}x{width // factor}"
    return FeatureSpace("averaged_pixels", Normalised(normalization, factor), resize=resize)
