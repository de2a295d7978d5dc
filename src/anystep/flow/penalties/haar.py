"""A penalty on Haar bands: how much a coarse error counts compared with a fine one.

A level halves every side: it splits three detail bands off images [B, C, H, W] and one off vectors [B, D]. The next
level splits the low band that is left. Bands are listed coarse to fine, as in PyWavelets: low, then per level the
horizontal, vertical and diagonal details.

The transform is a rotation, so the squared error of its bands *is* the squared error (Parseval). The penalty differs
from it by the bands' weights, or by an error per coefficient that is not its square.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from anystep.core.errors import UsageError
from anystep.core.fields import Finite, PositiveFloat
from anystep.flow.penalties.base import Penalty, RowError, update_mean
from anystep.flow.query import Query

BandNorm = Literal["l2", "l1", "charbonnier"]

#: least energy of a band, as a fraction of the mean: a band that is 0 in the data has a finite weight
ENERGY_FLOOR = 1e-6


@dataclass(frozen=True)
class Haar(Penalty):
    """A weighted penalty on the bands of a Haar transform of images, or of vectors with an even number of columns."""

    name: ClassVar[str] = "haar"

    levels: Annotated[int, Ge(1)] | None = None
    """Halvings of every side, at least 1; None: as many as the sides allow, 5 at 32 x 32."""
    norm: BandNorm = "l2"
    """Of a coefficient w: `l2` w^2, `l1` |w|, `charbonnier` sqrt(w^2 + eps^2) - eps."""
    eps: PositiveFloat = 1e-3
    """Where `charbonnier` turns from a parabola into the distance, in units of normalised data, above 0."""
    bands: Literal["whitened", "fixed", "flat"] = "whitened"
    """`whitened`: weights 1 / E[w^2] of targets, mean 1 over elements, all 1 in the first update; `fixed`: `weights`;
    `flat`: 1."""
    weights: Annotated[tuple[float, ...], Ge(0), Finite] | None = None
    """With `fixed`: of the low band, then of each level's details, coarse to fine, levels + 1 in all; not negative."""
    decay: Annotated[float, Interval(ge=0, lt=1)] = 0.99
    """With `whitened`: decay per update of the running mean of energies, in [0, 1)."""

    def check_combinations(self) -> None:
        """Raise UsageError for options without effect, and for those that amount to the squared error."""
        needs = {"eps": ("norm", "charbonnier"), "decay": ("bands", "whitened"), "weights": ("bands", "fixed")}
        for field, (other, value) in needs.items():
            if getattr(self, other) != value and getattr(self, field) != getattr(Haar, field):
                raise UsageError(f"penalty.{field} has no effect without penalty.{other} {value}: set both, or neither")
        if self.bands == "fixed" and not any(self.weights or ()):
            raise UsageError(
                "penalty.bands fixed needs penalty.weights: of the low band, then of each level, coarse to fine"
            )
        if self.norm == "l2" and self.bands != "whitened" and len(set(self.weights or ())) <= 1:
            raise UsageError(
                "Haar bands of equal weights with penalty.norm l2 are the squared error: set penalty.bands whitened or "
                "other weights, or penalty.norm l1 or charbonnier"
            )

    def start(
        self, shape: tuple[int, ...], tags: Sequence[str], marked: Sequence[str], device: torch.device
    ) -> nn.Module:
        """Return the energies of the bands, 0 before the first update. Raises UsageError for odd sides."""
        if len(shape) not in (1, 3):
            given = " x ".join(map(str, shape))
            raise UsageError(f"penalty haar is for images [C, H, W] and vectors [D], and examples here are {given}")
        most, levels, size = max_levels(shape), self._levels(shape), " x ".join(map(str, shape[-2:]))
        if most == 0:
            raise UsageError(f"penalty haar halves every side, and {size} has an odd one: use another penalty")
        if levels > most:
            raise UsageError(
                f"penalty.levels must be at most {most} for {size}, as each halves every side, got {levels}"
            )
        if self.weights is not None and len(self.weights) != levels + 1:
            raise UsageError(
                f"penalty.weights must be {levels + 1}, of the low band and {levels} levels, coarse to fine, "
                f"got {len(self.weights)}"
            )
        state = nn.Module()
        if self.bands == "whitened":
            state.register_buffer("energy", torch.zeros(len(band_shares(shape, levels)), dtype=torch.float64))
        return state

    def rows(self, state: nn.Module, prediction: Tensor, target: Tensor, query: Query, own: RowError) -> Tensor:
        """Return the weighted penalty of the error's bands, [B]."""
        shape = target.shape[1:]
        return band_error(prediction, target, self.band_weights(state, shape), self._levels(shape), self.norm, self.eps)

    def band_weights(self, state: nn.Module, shape: Sequence[int]) -> Tensor:
        """Return the weights of the bands of examples of this shape, float32."""
        shares = band_shares(shape, self._levels(shape))
        if self.bands == "whitened" and state.get_buffer("energy").any():
            return whitened(state.get_buffer("energy"), shares).float()
        if self.weights is None:
            return torch.ones(len(shares))
        low, *details = self.weights
        details_per_level = (len(shares) - 1) // len(details)
        return torch.tensor([low, *(weight for weight in details for _ in range(details_per_level))])

    def statistics(self, state: nn.Module, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return each band's energy, the sum of the targets' squared coefficients, and their number, [bands] each."""
        if self.bands != "whitened":
            return {}
        bands = haar(target.float(), self._levels(target.shape[1:]))
        energy = torch.stack([band.square().sum() for band in bands])
        return {"energy": energy, "coefficients": torch.tensor([band.numel() for band in bands])}

    def observe(self, state: nn.Module, total: dict[str, Tensor]) -> None:
        """Update the running mean of the energies."""
        if self.bands == "whitened":
            update_mean(state.get_buffer("energy"), total["energy"] / total["coefficients"], self.decay)

    def _levels(self, shape: Sequence[int]) -> int:
        return max_levels(shape) if self.levels is None else self.levels


def max_levels(shape: Sequence[int]) -> int:
    """Return how often every side of an example can be halved exactly: 5 for 32 x 32, 2 for 28 x 28, 0 for 27 x 28."""
    common = math.gcd(*shape[-2:])
    return (common & -common).bit_length() - 1


def band_shares(shape: Sequence[int], levels: int) -> Tensor:
    """Return the fraction of an example's elements in each band, float64 [bands]."""
    axes = len(shape[-2:])
    details = [level for level in range(levels, 0, -1) for _ in range(2**axes - 1)]
    return torch.tensor([2.0 ** (-axes * level) for level in [levels, *details]], dtype=torch.float64)


def haar(x: Tensor, levels: int) -> list[Tensor]:
    """Return the bands of ``x``, coarse to fine: [B, C, h, w] each (vectors: [B, h]). Sides must be divisible by 2."""
    axes = len(x.shape[1:][-2:])
    bands: list[Tensor] = []
    for _ in range(levels):
        parts = [x * 2 ** (-axes / 2)]  # the factor 1 / sqrt(2) of every axis
        for axis in range(-1, -1 - axes, -1):
            pairs = [torch.unflatten(part, axis, (-1, 2)).unbind(axis) for part in parts]
            parts = [half for even, odd in pairs for half in (even + odd, even - odd)]
        x, *details = parts
        bands = details + bands
    return [x, *bands]


def band_error(
    prediction: Tensor, target: Tensor, weights: Tensor, levels: int, norm: BandNorm = "l2", eps: float = 1e-3
) -> Tensor:
    """Return ``sum_b weights_b sum rho(W_b (prediction - target)) / elements``, [B], float32 or more.

    ``weights``: [bands]; with ``l2`` and weights 1 this is the squared error. ``eps`` is in the data's unit: well below
    it ``charbonnier`` is w^2 / (2 eps), well above it |w|.
    """
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    error = prediction.to(dtype) - target.to(dtype)
    rows = torch.stack([_rho(band, norm, eps).flatten(1).sum(1) for band in haar(error, levels)], 1)  # [B, bands]
    return (rows * weights.to(rows)).sum(1) / error[0].numel()


def _rho(band: Tensor, norm: BandNorm, eps: float) -> Tensor:
    if norm == "l1":
        return band.abs()
    square = band.square()
    if norm == "l2":
        return square
    return square / ((square + eps * eps).sqrt() + eps)  # the same, without the difference of two near equal numbers


def whitened(energy: Tensor, shares: Tensor) -> Tensor:
    """Return weights ``1 / energy`` [bands], so that every band of a zero prediction is equally wrong per element.

    Their mean over *elements* is 1: with l2, a white error costs what it does in the squared error, so that learning
    rates and gradient clipping keep their meaning. Energies count as at least `ENERGY_FLOOR` times their mean.
    """
    shares = shares.to(energy)
    inverse = 1 / energy.clamp(min=ENERGY_FLOOR * float((shares * energy).sum()))
    return inverse / (shares * inverse).sum()
