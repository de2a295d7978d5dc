"""Averages of any width from stored ones, after training (post-hoc EMA; Karras et al. 2024, section 3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray
from torch import Tensor

from anystep.core.fields import Checked, Rule, require

#: widths above this, that of a plain mean of all parameters, need a power below 0
WIDEST = 12**-0.5
#: an average over a thousandth of the run, the last parameters in all but name: below it the power, about 1 / width,
#: means nothing, and in the end overflows
NARROWEST = 0.001
#: what the relative width of a power average can be
WIDTH = Rule(lambda width: NARROWEST <= width <= WIDEST, "at least 0.001 and at most 0.2886, a plain mean")


def check_width(name: str, sigma_rel: float) -> None:
    """Raise ValueError that names ``name`` unless a power average can have this width: in [0.001, 0.2886]."""
    require(WIDTH.holds(sigma_rel), name, sigma_rel, WIDTH.words)


@cache
def exponent(sigma_rel: float) -> float:
    """Return the power gamma >= 0 of the profile of relative width ``sigma_rel``, the inverse of `relative_width`.

    It is the largest root of ``(gamma + 2)^2 (gamma + 3) sigma_rel^2 = gamma + 1``. Raises ValueError for a width that
    is not in [0.001, 0.2886].
    """
    check_width("sigma_rel", sigma_rel)
    inverse = sigma_rel**-2
    return max(0.0, float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max()))


def relative_width(gamma: float) -> float:
    """Return the standard deviation, over t, of the profile ``tau^gamma`` on [0, t] (the paper's section 3.1)."""
    return float((gamma + 1) ** 0.5 / ((gamma + 2) * (gamma + 3) ** 0.5))


@dataclass(frozen=True)
class Profile(Checked):
    """How the parameters of a run weigh in an average: that of `PowerEma` of width ``sigma_rel`` after ``updates``."""

    updates: Annotated[int, Ge(1)]
    sigma_rel: Annotated[float, WIDTH]

    def overlap(self, other: "Profile") -> float:
        """Return the integral of the product of both profiles, each of integral 1 (the paper's appendix C)."""
        return float(overlaps([self], [other])[0, 0])


def overlaps(some: Sequence[Profile], others: Sequence[Profile]) -> NDArray[np.float64]:
    """Return the overlap of each of ``some`` with each of ``others``, [len(some), len(others)].

    Over [0, t], t the smaller number of updates: ``(a + 1) (b + 1) / (a + b + 1) t^(a + b + 1)`` over
    ``t_a^(a + 1) t_b^(b + 1)``, computed by logarithms.
    """
    a = np.array([exponent(profile.sigma_rel) for profile in some])[:, None]
    b = np.array([exponent(profile.sigma_rel) for profile in others])
    log_a = np.log([profile.updates for profile in some])[:, None]
    log_b = np.log([profile.updates for profile in others])
    power = (a + b + 1) * np.minimum(log_a, log_b) - (a + 1) * log_a - (b + 1) * log_b
    return np.asarray((a + 1) * (b + 1) / (a + b + 1) * np.exp(power), dtype=np.float64)


#: shares whose sizes add up to no more than this are left out: the sum is rounded to float32, by as much
NEGLIGIBLE = 2.0**-24


@dataclass(frozen=True)
class Mixture:
    """A sum of stored averages: by how much each counts that does, 1 in all.

    ``mismatch`` is how far its profile is from the one wanted: the L2 norm of the difference over its own norm.
    """

    shares: Mapping[Profile, float]
    mismatch: float

    @property
    def gain(self) -> float:
        """The sum of the shares' sizes, at least 1: by this much the rounding of what is stored may be magnified."""
        return sum(map(abs, self.shares.values()))


def mixture(stored: Sequence[Profile], wanted: Profile) -> Mixture:
    """Return the sum of stored averages whose profile is nearest ``wanted``'s.

    Least squares over the time of training, in closed form: the overlaps of the stored profiles with each other times
    the answer are their overlaps with the one wanted. One that is stored is itself, alone. The smallest shares are left
    out, as many as together are below the rounding of a float32 sum (`NEGLIGIBLE`).
    Differs from the paper: there the sum is left free. At 1, what all parameters have in common is kept exactly.
    Raises ValueError when nothing is stored, or a profile twice, or ``wanted`` is after the newest that is stored.
    """
    if not stored or len(set(stored)) < len(stored):
        raise ValueError(f"stored must be different profiles, at least one, got {list(stored)}")
    newest = max(profile.updates for profile in stored)
    if wanted.updates > newest:
        raise ValueError(f"updates must be at most {newest}, the newest that is stored, got {wanted.updates}")
    if wanted in stored:
        return Mixture({wanted: 1.0}, 0.0)
    matrix = overlaps(stored, stored)
    scale = np.diag(matrix) ** -0.5  # of one size: the system is stiff
    matrix = matrix * scale[:, None] * scale
    right = overlaps(stored, [wanted])[:, 0] * scale
    free, rise = np.linalg.lstsq(matrix, np.stack([right, scale], axis=1), rcond=1e-13)[0].T
    share = (free + rise * (1 - scale @ free) / (scale @ rise)) * scale  # Lagrange's condition that the sum is 1
    order = np.argsort(abs(share))
    share[order[np.cumsum(abs(share[order])) <= NEGLIGIBLE]] = 0
    share /= share.sum()
    scaled = share / scale
    off = 1 + (scaled @ matrix @ scaled - 2 * scaled @ right) / wanted.overlap(wanted)
    counting = {profile: float(value) for profile, value in zip(stored, share, strict=True) if value}
    return Mixture(counting, float(max(0.0, off) ** 0.5))


def reconstruct(stored: Mapping[Profile, Mapping[str, Tensor]], shares: Mapping[Profile, float]) -> dict[str, Tensor]:
    """Return the sum of stored averages, each times its share, of a `mixture` (section 3.2).

    ``stored`` holds parameters by name, kept during the run at some updates, usually of two widths; it is asked for one
    average after the other, those that have a share, so that it may read them from disk. Summed in float64; dtype and
    device are those stored. Tensors that are no floating-point numbers are the newest's.
    """
    total: dict[str, Tensor] = {}
    for profile in sorted(shares, key=lambda profile: profile.updates):
        tensors = stored[profile]
        for name, tensor in tensors.items():
            if not tensor.is_floating_point():
                total[name] = tensor.clone()
            elif name in total:
                total[name].add_(tensor.double(), alpha=shares[profile])
            else:
                total[name] = tensor.double() * shares[profile]
    return {name: total[name].to(tensor.dtype) for name, tensor in tensors.items()}
