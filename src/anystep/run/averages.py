"""Power-function EMAs of any width, combined from stored ones after training (Karras et al. 2024, section 3)."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anystep.core.fields import Rule

#: relative width of a power-function EMA: 12^-1/2 is a plain mean of all parameters; below 0.001 the EMA is close to
#: the last parameters, and its power, about 1 / width, would overflow in the end
Width = Annotated[
    float, Rule(lambda width: 0.001 <= width <= 12**-0.5, "at least 0.001 and at most 0.2886, a plain mean")
]
#: shares that add up to less than this are dropped: as much is lost when the sum is rounded to float32
NEGLIGIBLE = 2.0**-24


@cache
def exponent(sigma_rel: float) -> float:
    """Return gamma >= 0 for which the profile ``tau^gamma`` on [0, t] has the standard deviation ``sigma_rel`` t.

    It is the largest root of ``(gamma + 2)^2 (gamma + 3) sigma_rel^2 = gamma + 1`` (section 3.1).
    """
    inverse = sigma_rel**-2
    return max(0.0, float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max()))


class Profile(NamedTuple):
    """The weights of a run's parameters in the `PowerEma` of relative width ``sigma_rel`` after ``updates``."""

    updates: int
    sigma_rel: float


def overlaps(some: Sequence[Profile], others: Sequence[Profile]) -> NDArray[np.float64]:
    """Return the integral of the product of each of ``some`` with each of ``others``, [len(some), len(others)].

    Profiles have the integral 1. Over [0, t], t the smaller number of updates, the product's integral is
    ``(a + 1) (b + 1) / (a + b + 1) t^(a + b + 1) / (t_a^(a + 1) t_b^(b + 1))`` (appendix C), computed by logarithms.
    """
    a = np.array([exponent(profile.sigma_rel) for profile in some])[:, None]
    b = np.array([exponent(profile.sigma_rel) for profile in others])
    log_a = np.log([profile.updates for profile in some])[:, None]
    log_b = np.log([profile.updates for profile in others])
    power = (a + b + 1) * np.minimum(log_a, log_b) - (a + 1) * log_a - (b + 1) * log_b
    return np.asarray((a + 1) * (b + 1) / (a + b + 1) * np.exp(power), dtype=np.float64)


class Mixture(NamedTuple):
    """A weighted sum of stored EMAs.

    ``shares``: the weight of each, 1 in all. ``mismatch``: relative L2 error of the sum's profile. ``gain``: sum of the
    weights' absolute values, at least 1, the factor by which rounding errors of the stored EMAs may grow.
    """

    shares: Mapping[Profile, float]
    mismatch: float
    gain: float


def mixture(stored: Sequence[Profile], wanted: Profile) -> Mixture:
    """Return the sum of stored EMAs whose profile is nearest to ``wanted``, which is not later than all of them.

    Least squares over the training time, in closed form (section 3.2): the stored profiles' overlaps with each other
    times the shares are their overlaps with the wanted one. A stored profile is returned unchanged, and the smallest
    shares are dropped (`NEGLIGIBLE`).
    Differs from the paper: its sum of shares is free. At 1, what all parameters have in common is kept exactly.
    """
    if wanted in stored:
        return Mixture({wanted: 1.0}, 0.0, 1.0)
    matrix = overlaps(stored, stored)
    scale = np.diag(matrix) ** -0.5  # to a diagonal of 1: the system is stiff
    matrix = matrix * scale[:, None] * scale
    right = overlaps(stored, [wanted])[:, 0] * scale
    free, rise = np.linalg.lstsq(matrix, np.stack([right, scale], axis=1), rcond=1e-13)[0].T
    share = (free + rise * (1 - scale @ free) / (scale @ rise)) * scale  # Lagrange's condition that the sum is 1
    order = np.argsort(abs(share))
    share[order[np.cumsum(abs(share[order])) <= NEGLIGIBLE]] = 0
    share /= share.sum()
    scaled = share / scale
    error = 1 + (scaled @ matrix @ scaled - 2 * scaled @ right) / overlaps([wanted], [wanted])[0, 0]
    shares = {profile: float(value) for profile, value in zip(stored, share, strict=True) if value}
    return Mixture(shares, float(max(0.0, error) ** 0.5), float(abs(share).sum()))


def reconstruct(read: Callable[[Profile], Mapping[str, Tensor]], shares: Mapping[Profile, float]) -> dict[str, Tensor]:
    """Return the weighted sum of the stored EMAs that ``read`` returns, one at a time.

    The sum is computed in float64 and has the stored dtypes. Tensors of integers are those of the newest.
    """
    total: dict[str, Tensor] = {}
    for profile in sorted(shares, key=lambda profile: profile.updates):
        tensors = read(profile)
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                total[name] = tensor.double() * shares[profile] + total.get(name, 0)
            else:
                total[name] = tensor
    return {name: total[name].to(tensor.dtype) for name, tensor in tensors.items()}
