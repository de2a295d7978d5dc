"""MeanFlow: the average velocity over any step, learned from its own derivative along the path."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from anystep.core.fields import Finite, Fraction, PositiveFloat
from anystep.core.random import Draw
from anystep.flow.condition import Condition, rows
from anystep.flow.path import advance, interpolate, velocity
from anystep.flow.query import Network, PhaseProgress, Query
from anystep.objectives.base import Batch, Networks, Objective, Targets, drop


@dataclass(frozen=True)
class MeanFlow(Objective):
    """Regress the average velocity of any step (Geng et al. 2025, "Mean Flows", Algorithm 1).

    ::

        d s(x_t, t, d) = integral of v from t to t + d           what an average velocity is (eq. 3)
        differentiated along the path, t + d held fixed:
        s = v + d ds/dt,  ds/dt = v ds/dx + ds/dt - ds/dd        the MeanFlow identity (eq. 6 and 8)

        x0 ~ N(0, I),  x1 ~ data,  two times ~ p,  t the earlier, d to the later;  d = 0 in 1 - share of the examples
        x_t = (1 - t) x0 + t x1,   v = x1 - x0
        query (x_t, t, d),   target v + d ds/dt                  no gradient (eq. 10 and 11)
        minimise |e|^2 / (|e|^2 + floor)^power, e = s(query) - target, no gradient through the divisor (eq. 22)

    The paper's t is the noise level, 1 - t here: the signs of d ds/dt and of p's mean are the other way round.
    The derivative is one forward-mode product (a JVP) of the examples with d > 0, by plain attention: the fused kernels
    have none. It is that of the sinusoids of t, times their scale: the network's time_scale should be small.
    Differs from the paper: no guidance in the target (its section 4.2); guidance is two passes per step at sampling.
    Differs from the authors' code: its adaptive weight adds 0.01 to the squared error, the paper and we 1e-3.
    The logged loss stays near 1, whatever the error: the adaptive weight divides by it.
    """

    name: ClassVar[str] = "mean_flow"
    uses_step: ClassVar[bool] = True
    any_step: ClassVar[bool] = True
    uses_jvp: ClassVar[bool] = True
    tags: ClassVar[tuple[str, ...]] = ("flow", "average")

    share: Fraction = 0.25
    """Fraction of examples with d > 0 in the global batch, in [0, 1] (Geng et al. 2025, Table 1a: 25 % of r != t)."""
    time_mean: Annotated[float, Finite] = 0.4
    """Mean of the normal distribution of logit(t); above 0 is nearer the data (Table 1d: -0.4 of 1 - t)."""
    time_std: PositiveFloat = 1.0
    """Standard deviation of that distribution, above 0 (Table 1d)."""
    adaptive_power: Annotated[float, Interval(ge=0, le=2)] = 1.0
    """Power of the adaptive weight, in [0, 2]: 0 is the squared error (Table 1e: 1)."""
    adaptive_floor: PositiveFloat = 1e-3
    """Added to an example's squared error in the adaptive weight, above 0 (section 4.3)."""
    label_drop: Fraction = 0.1
    """Probability that a label becomes the null label, in [0, 1] (Table 4)."""

    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
        """Map a batch to velocities at d = 0, and to average velocities by the identity at d > 0."""
        x0, x1 = batch.x0, batch.x1  # [B, ...]
        average = draw.ours(draw.spread(self.share))  # [B]
        t, d = draw_interval(draw, average, self.time_mean, self.time_std)
        x_t, v = interpolate(x0, x1, t), velocity(x0, x1)
        condition = drop(networks.online, batch.condition, self.label_drop, draw)
        i = average.nonzero().squeeze(1)
        rate = total_derivative(networks.online, x_t[i], t[i], d[i], rows(condition, i), v[i])
        target = v.index_copy(0, i, advance(v[i], d[i], rate).to(v.dtype))
        return Targets(Query(x_t, t, d, condition), target, tag=average.long())

    def error(self, prediction: Tensor, target: Tensor, query: Query) -> Tensor:
        """Return the adaptively weighted squared error, [B]."""
        return adaptive_error(prediction, target, self.adaptive_floor, self.adaptive_power)

    @property
    def cost(self) -> float:
        """Cost relative to flow matching: the JVP of an example takes as much as two forward passes."""
        return (3 + 2 * self.share) / 3


@torch.no_grad()
def total_derivative(network: Network, x_t: Tensor, t: Tensor, d: Tensor, condition: Condition, v: Tensor) -> Tensor:
    """Return ds/dt along the velocity ``v`` with t + d held fixed, shaped like ``x_t``: tangents (v, 1, -1)."""

    def s(x_t: Tensor, t: Tensor, d: Tensor) -> Tensor:
        return network(x_t, t, d, condition)

    with sdpa_kernel(SDPBackend.MATH):
        pair = torch.func.jvp(s, (x_t, t, d), (v, torch.ones_like(t), -torch.ones_like(d)))
    rate: Tensor = pair[1]
    return rate


def draw_interval(draw: Draw, average: Tensor, mean: float, std: float) -> tuple[Tensor, Tensor]:
    """Return t [B], the earlier of two logit-normal times, and d [B]: to the later one where ``average``, else 0."""
    one, other = (torch.special.ndtri(draw.uniform(name).clamp(1e-7, 1 - 1e-7)) for name in ("time", "time_end"))
    start, end = (torch.sigmoid(mean + std * pick(one, other)) for pick in (torch.minimum, torch.maximum))
    return start, torch.where(average, end - start, 0.0)


def adaptive_error(prediction: Tensor, target: Tensor, floor: float, power: float = 1.0) -> Tensor:
    """Return ``|e|^2 / (|e|^2 + floor)^power`` per example, with no gradient through the divisor; |e|^2 is a sum."""
    error = (prediction.float() - target.float()).square().flatten(1).sum(1)
    return error / (error.detach() + floor) ** power
