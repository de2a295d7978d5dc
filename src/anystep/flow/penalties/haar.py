"""A penalty on Haar bands: how much a coarse error counts beside a fine one."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from anystep.core.errors import UsageError
from anystep.core.fields import Finite, PositiveFloat
from anystep.flow.penalties.bands import (
    DETAILS,
    BandNorm,
    band_error,
    band_names,
    band_sums,
    check_levels,
    haar_levels,
    sides,
    track,
    whitened,
)
from anystep.flow.penalties.base import Penalty, RowError
from anystep.flow.query import Query

Bands = Literal["whitened", "fixed", "flat"]


@dataclass(frozen=True)
class Haar(Penalty):
    """A weighted penalty on the bands of a Haar transform: of images, or of vectors with an even number of columns."""

    name: ClassVar[str] = "haar"

    levels: Annotated[int, Ge(1)] | None = None
    """Halvings of every side, at least 1; None: as many as the sides allow, 5 at 32 x 32."""
    norm: BandNorm = "l2"
    """Of a coefficient w: `l2` w^2, `l1` |w|, `charbonnier` sqrt(w^2 + eps^2) - eps."""
    eps: PositiveFloat = 1e-3
    """Where `charbonnier` turns from a parabola into the distance, in units of normalised data, above 0."""
    bands: Bands = "whitened"
    """`whitened`: weights 1 / E[w^2] of targets, mean 1 over elements, all 1 in the first update; `fixed`: `weights`;
    `flat`: 1."""
    weights: Annotated[tuple[float, ...], Ge(0), Finite] | None = None
    """With `fixed`: of the low band, then of each level's details, coarse to fine, levels + 1 in all; not negative."""
    decay: Annotated[float, Interval(ge=0, lt=1)] = 0.99
    """With `whitened`: decay an update of the moving average of energies, in [0, 1)."""

    def check_combinations(self) -> None:
        """Raise UsageError for options without effect, and for those that amount to the squared error."""
        if self.norm != "charbonnier":
            self._refuse("eps", "norm charbonnier")
        if self.bands != "whitened":
            self._refuse("decay", "bands whitened")
        if self.bands != "fixed":
            self._refuse("weights", "bands fixed")
        elif self.weights is None or not any(self.weights):
            raise UsageError(
                "penalty.bands fixed needs penalty.weights: of the low band, then of each level, coarse to fine"
            )
        if self.norm == "l2" and self.bands != "whitened" and len(set(self.weights or ())) <= 1:
            same = "flat" if self.bands == "flat" else "fixed, all weights alike,"
            raise UsageError(
                f"penalty.bands {same} with penalty.norm l2 is the squared error, as Haar bands are a rotation: set "
                "penalty.bands whitened or other weights, or penalty.norm l1 or charbonnier"
            )

    def _refuse(self, field: str, where: str) -> None:
        """Raise UsageError when this field is set, as it has no effect here."""
        default = {f.name: f.default for f in dataclasses.fields(self)}[field]
        if getattr(self, field) != default:
            raise UsageError(f"penalty.{field} does nothing without penalty.{where}: set that too, or leave it out")

    def start(
        self, shape: tuple[int, ...], tags: Sequence[str], marked: Sequence[str], device: torch.device
    ) -> nn.Module:
        """Return the energies of the bands, 0 until an update was made. Raises UsageError for odd sides."""
        self._check_shape((1, *shape))
        state = nn.Module()
        if self.bands == "whitened":
            bands = len(band_names((1, *shape), self._depth((1, *shape))))
            state.register_buffer("energy", torch.zeros(bands, dtype=torch.float64))
        return state

    def rows(
        self, state: nn.Module, prediction: Tensor, target: Tensor, query: Query, tag: Tensor, own: RowError
    ) -> Tensor:
        """Return the weighted penalty of the error's bands, [B]."""
        weights = self.band_weights(state, target.shape)
        return band_error(prediction, target, self._depth(target.shape), weights, self.norm, self.eps)

    def band_weights(self, state: nn.Module, shape: Sequence[int]) -> Tensor | None:
        """Return the weights of the bands of rows shaped [B, ...], float32; None: all count 1."""
        if self.bands == "fixed":
            low, *details = self.weights or ()
            return torch.tensor([low, *(weight for weight in details for _ in DETAILS[len(sides(shape))])])
        if self.bands == "flat" or not state.get_buffer("energy").any():
            return None
        return whitened(state.get_buffer("energy"), shape, self._depth(shape)).float()

    def statistics(
        self, state: nn.Module, prediction: Tensor, target: Tensor, query: Query, tag: Tensor
    ) -> dict[str, Tensor]:
        """Return the targets' energy in each band, summed over coefficients, and the number of these, [bands] each."""
        if self.bands != "whitened":
            return {}
        energy, coefficients = band_sums(target, self._depth(target.shape))
        return {"energy": energy, "coefficients": coefficients}

    def observe(self, state: nn.Module, total: dict[str, Tensor]) -> None:
        """Take the energies of an update into their moving average."""
        if self.bands == "whitened":
            before, new = state.get_buffer("energy"), total["energy"] / total["coefficients"]
            before.copy_(track(before if before.any() else None, new, self.decay))

    def _depth(self, shape: Sequence[int]) -> int:
        """Return the number of levels for rows shaped [B, ...]."""
        return haar_levels(shape) if self.levels is None else self.levels

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise UsageError unless rows shaped [1, ...] have bands, and as many as there are weights."""
        if len(shape) not in (2, 4):
            of = " x ".join(map(str, shape[1:]))
            raise UsageError(
                f"penalty haar is for images [C, H, W] and vectors [D], and examples here are {of}: leave it out"
            )
        if haar_levels(shape) == 0:
            size = " x ".join(map(str, sides(shape)))
            raise UsageError(f"penalty haar halves every side, and {size} has an odd one: leave it out")
        try:
            check_levels(shape, self._depth(shape))
        except ValueError as error:
            raise UsageError(f"penalty.{error}") from None
        if self.weights is not None and len(self.weights) != self._depth(shape) + 1:
            raise UsageError(
                f"penalty.weights must be {self._depth(shape) + 1}, of the low band and {self._depth(shape)} levels, "
                f"coarse to fine, got {len(self.weights)}"
            )
