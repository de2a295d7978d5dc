"""The orthonormal Haar transform, and what a prediction's error is in its bands.

A level halves every side: of images [B, C, H, W] it splits off three detail bands, of vectors [B, D] one; what is left
is ``low``, which the next level splits. Level 1 is the finest. Bands are listed coarse to fine, as in `band_names`.

The transform is a rotation, so squared error in its bands *is* the mean squared error (Parseval). A wavelet loss acts
through the bands' weights, or through an error of a coefficient that is not its square.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from anystep.core.fields import at_least, one_of, positive

BandNorm = Literal["l2", "l1", "charbonnier"]
#: detail bands of one level; horizontal: edges that lie so, differences of a row of pixels and the one below it
DETAILS = {1: ("detail",), 2: ("horizontal", "vertical", "diagonal")}


def sides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the lengths that a level halves: (H, W) of images [B, C, H, W], (D,) of vectors [B, D]."""
    if len(shape) not in (2, 4):
        raise ValueError(f"Haar bands are made of images [B, C, H, W] or vectors [B, D], got shape {tuple(shape)}")
    return tuple(shape[1:] if len(shape) == 2 else shape[2:])


def haar_levels(shape: Sequence[int]) -> int:
    """Return how often every side can be halved exactly: 5 for 32 x 32, 2 for 28 x 28, 0 where a side is odd."""
    common = math.gcd(*sides(shape))
    return (common & -common).bit_length() - 1


def check_levels(shape: Sequence[int], levels: int) -> None:
    """Raise ValueError unless every side can be halved ``levels`` times: nothing is padded, so that bands are exact."""
    at_least("levels", levels, 1)
    most, size = haar_levels(shape), " x ".join(map(str, sides(shape)))
    if most == 0:
        raise ValueError(f"Haar bands need even sides, and {size} has an odd one: {levels} levels cannot be made")
    if levels > most:
        raise ValueError(f"levels must be at most {most} for {size} (each level halves every side), got {levels}")


def band_names(shape: Sequence[int], levels: int) -> tuple[str, ...]:
    """Return the bands' names, coarse to fine: ``low``, ``horizontal 2``, ``vertical 2``, ..., ``diagonal 1``."""
    details = DETAILS[len(sides(shape))]
    return ("low", *(f"{detail} {level}" for level in range(levels, 0, -1) for detail in details))


def band_shares(shape: Sequence[int], levels: int) -> Tensor:
    """Return each band's share of a row's elements, float64 [bands]; they sum to 1."""
    axes = len(sides(shape))
    details = [2.0 ** (-axes * level) for level in range(levels, 0, -1) for _ in DETAILS[axes]]
    return torch.tensor([2.0 ** (-axes * levels), *details], dtype=torch.float64)


def haar(x: Tensor, levels: int) -> list[Tensor]:
    """Return the bands of ``x``, coarse to fine: [B, C, h, w] each (vectors: [B, h])."""
    check_levels(x.shape, levels)
    axes = len(sides(x.shape))
    bands: list[Tensor] = []
    for _ in range(levels):
        parts = [x * 2 ** (-axes / 2)]  # 1 / sqrt(2) an axis, at once
        for axis in range(-1, -1 - axes, -1):
            parts = [half for part in parts for half in _split(part, axis)]
        x, *details = parts
        bands = details + bands
    return [x, *bands]


def inverse_haar(bands: Sequence[Tensor]) -> Tensor:
    """Return what `haar` made ``bands`` of."""
    low, *details = bands
    axes = len(sides(low.shape))
    count = len(DETAILS[axes])
    for first in range(0, len(details), count):
        parts = [band * 2 ** (-axes / 2) for band in (low, *details[first : first + count])]
        for axis in range(-axes, 0):
            parts = [_join(low, high, axis) for low, high in zip(parts[::2], parts[1::2], strict=True)]
        (low,) = parts
    return low


def _split(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return sums and differences of neighbours along ``axis``."""
    even, odd = torch.unflatten(x, axis, (-1, 2)).unbind(axis)
    return even + odd, even - odd


def _join(low: Tensor, high: Tensor, axis: int) -> Tensor:
    return torch.stack([low + high, low - high], axis).flatten(axis - 1, axis)


def band_error(
    prediction: Tensor,
    target: Tensor,
    levels: int,
    weights: Tensor | None = None,
    norm: BandNorm = "l2",
    eps: float = 1e-3,
) -> Tensor:
    """Return ``sum_b weights_b sum rho(W_b (prediction - target)) / elements``, [B], float32 or more.

    ``weights`` [bands] None: 1. ``l2``: rho(w) = w^2, with weights 1 the squared error; ``l1``: |w|;
    ``charbonnier``: sqrt(w^2 + eps^2) - eps, w^2 / (2 eps) well below eps > 0 and |w| well above, in the data's units.
    """
    one_of("norm", norm, BandNorm)
    positive("eps", eps)
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    error = prediction.to(dtype) - target.to(dtype)
    rows = torch.stack([_rho(band, norm, eps).flatten(1).sum(1) for band in haar(error, levels)], 1)  # [B, bands]
    if weights is None:
        weights = rows.new_ones(rows.shape[1])
    if weights.shape != rows.shape[1:]:
        names = band_names(error.shape, levels)
        raise ValueError(
            f"weights must be {len(names)}, one for each of {', '.join(names)}: got {tuple(weights.shape)}"
        )
    return (rows * weights.to(rows)).sum(1) / error[0].numel()


def _rho(band: Tensor, norm: BandNorm, eps: float) -> Tensor:
    if norm == "l1":
        return band.abs()
    square = band.square()
    if norm == "l2":
        return square
    return square / ((square + eps * eps).sqrt() + eps)  # the same, without the difference of two near equal numbers


def band_sums(target: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Return each band's energy, the sum of its squared coefficients over rows, and their number: [bands] each."""
    x = target.to(torch.promote_types(target.dtype, torch.float32))
    bands = haar(x, levels)
    return torch.stack([band.square().sum() for band in bands]), torch.tensor([band.numel() for band in bands])


def track(energy: Tensor | None, new: Tensor, decay: float) -> Tensor:
    """Return the moving average of band energies after one more: ``new`` itself when it is the first."""
    return new if energy is None else torch.lerp(energy, new, 1 - decay)


#: a band counts at most 1 / FLOOR times the average one, so that one in which data never varies stays finite
FLOOR = 1e-6


def whitened(energy: Tensor, shape: Sequence[int], levels: int) -> Tensor:
    """Return weights ``1 / energy`` [bands], so that every band of a zero prediction is equally wrong per element.

    Their mean over *elements* is 1 (a band counts with its share): with l2, a white error costs what it does in the
    squared error, so that learning rates and gradient clipping keep their meaning. Energies count as at least `FLOOR`
    of their mean.
    """
    share = band_shares(shape, levels).to(energy)
    inverse = 1 / energy.clamp(min=FLOOR * float((share * energy).sum()))
    return inverse / (share * inverse).sum()
