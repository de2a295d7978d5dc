"""Alpha-Flow: from flow matching to MeanFlow in one run, without a derivative."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Interval
from torch import Tensor

from anystep.core.fields import Finite, Fraction, PositiveFloat, PowerOfTwo, require
from anystep.core.random import Draw
from anystep.flow.condition import Condition, rows
from anystep.flow.path import advance, interpolate, velocity
from anystep.flow.query import Network, PhaseProgress, Query
from anystep.objectives.base import Batch, Networks, Objective, Targets, drop
from anystep.objectives.mean_flow import adaptive_error, draw_interval
from anystep.objectives.shortcut import FLOW, Shortcut


@dataclass(frozen=True)
class AlphaFlow(Objective):
    """Take the first ``alpha d`` of a step by a known velocity and the rest by the network (Zhang et al. 2025).

    ::

        alpha = 1 - sigmoid(temperature (progress - middle) / (end - begin)), clamped      (Algorithm 2)
        x0 ~ N(0, I),  x1 ~ data,  (t, d) ~ p;  d = 0 in 1 - share of the examples
        x_t = (1 - t) x0 + t x1,   v = x1 - x0 (shift = data),   v = s-(x_t, t, alpha d) (shift = network)
        x' = x_t + alpha d v                                     s- = s without gradient, no EMA
        query (x_t, t, d),   target alpha v + (1 - alpha) s-(x', t + alpha d, (1 - alpha) d)       (eq. 8)
        minimise alpha |e|^2 / (|e|^2 + floor), e = s(query) - target, alpha = 1 where d = 0       (G.2)

    alpha = 1 takes v = x1 - x0 and is flow matching; alpha -> 0 is MeanFlow. alpha = 1/2 with shift = network and
    interval = dyadic is the self-consistency target of shortcut models (Theorem 1), of s, not its EMA.
    The paper's t is the noise level, 1 - t here.
    Differs from the paper: below ``alpha_min`` it continues with MeanFlow's target, a JVP; here alpha stays there, so
    that fused attention and `torch.compile` work unchanged (its Table 5d, ImageNet B/2: FID 45.6 against 43.3). No
    guidance in the target; two passes per step at sampling. Its XL models sample two steps with re-noising, ours never.
    Differs from the authors' code: |e|^2 is the mean over an example's elements there, the sum here, so that their
    floor of 1e-3 is 1e-3 times the number of elements here.
    """

    name: ClassVar[str] = "alpha_flow"
    uses_step: ClassVar[bool] = True
    any_step: ClassVar[bool] = True
    scheduled: ClassVar[bool] = True
    #: at alpha = 0.005 the gradient in bfloat16 had cosine 0.66 with that of float32
    exact: ClassVar[bool] = True
    tags: ClassVar[tuple[str, ...]] = ("flow", "average")

    share: Fraction = 0.75
    """Fraction of examples with d > 0 in the global batch, in [0, 1] (Zhang et al. 2025, Table 3: 1/2 for XL/2)."""
    alpha_min: Annotated[float, Interval(gt=0, le=1)] = 5e-3
    """Smallest alpha, in (0, 1]; below 1/2 if alpha falls from 1, as it is 1 above 1 - alpha_min (section 4.2)."""
    alpha_max: float = 1.0
    """Largest alpha, in [alpha_min, 1]; alpha_min = alpha_max keeps it constant (Zhang et al. 2025: 1)."""
    begin: float = 0.0
    """Fraction of the run after which alpha starts to fall, in [0, end) (Table 3: 0 for B/2, 1/2 for XL/2)."""
    end: Fraction = 1.0
    """Fraction of the run after which it has fallen, in (begin, 1] (Table 3: 1 for B/2, 5/6 for XL/2)."""
    temperature: PositiveFloat = 25.0
    """Steepness of the fall, above 0 (section 4.2)."""
    shift: Literal["data", "network"] = "data"
    """Velocity of the first part: `data`, x1 - x0, or `network`, its prediction for that part (Table 5a: data)."""
    interval: Literal["logit_normal", "dyadic"] = "logit_normal"
    """Distribution of (t, d): `logit_normal`, two such times, or `dyadic`, a shortcut model's."""
    time_mean: Annotated[float, Finite] = 0.4
    """Mean of the normal distribution of logit(t), with `interval=logit_normal` (Table 3: -0.4 of 1 - t)."""
    time_std: PositiveFloat = 1.0
    """Standard deviation of that distribution, above 0 (Table 3)."""
    M: Annotated[int, PowerOfTwo] = 128
    """Number of smallest steps, a power of two, with `interval=dyadic` (Frans et al. 2024, section 3.1)."""
    adaptive_floor: PositiveFloat = 1e-3
    """Added to an example's squared error in the adaptive weight, above 0 (section 4.2). It should be well below
    alpha_min^2 times the elements of an example: in the plane 1e-6 learns one step, 1e-3 does not."""
    label_drop: Fraction = 0.1
    """Probability that a label becomes the null label, in [0, 1]."""

    def check_combinations(self) -> None:
        """Raise UsageError unless alpha falls, from its largest value to its smallest, between two times."""
        require(self.alpha_min <= self.alpha_max, "objective.alpha_max", self.alpha_max, f"in [{self.alpha_min:g}, 1]")
        if self.alpha_min < self.alpha_max == 1:
            rule = "less than 0.5 when alpha_max is 1, for it would stay 1 above 1 - alpha_min"
            require(self.alpha_min < 0.5, "objective.alpha_min", self.alpha_min, rule)
        require(self.begin < self.end, "objective.begin", self.begin, f"in [0, {self.end:g})")

    def check_batch(self, batch: int) -> None:
        """Raise UsageError if `interval=dyadic` would train d = 1 only: fewer examples than levels."""
        if self.interval == "dyadic":
            Shortcut(share=self.share, M=self.M).check_batch(batch)

    def alpha(self, progress: float) -> float:
        """Return the fraction of a step that v takes, at a fraction ``progress`` of the run (Algorithm 2)."""
        middle, width = (self.begin + self.end) / 2, self.end - self.begin
        alpha = (1 - math.tanh(self.temperature * (progress - middle) / width / 2)) / 2  # 1 - sigmoid, no overflow
        alpha = min(max(alpha, self.alpha_min), self.alpha_max)
        return 1.0 if self.alpha_max == 1 and alpha > 1 - self.alpha_min else alpha

    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
        """Map a batch to velocities at d = 0, and to averages of both parts of the step at d > 0."""
        x0, x1 = batch.x0, batch.x1  # [B, ...]
        alpha = self.alpha(progress.fraction)
        if self.interval == "dyadic":
            shortcut = Shortcut(share=self.share, M=self.M)
            level = shortcut.draw_levels(draw, progress)
            average, (t, half) = level != FLOW, shortcut.draw_times(draw, level)  # [B]
            d = torch.where(average, 2 * half, 0.0)
        else:
            average = draw.ours(draw.spread(self.share))
            t, d = draw_interval(draw, average, self.time_mean, self.time_std)
        x_t, v = interpolate(x0, x1, t), velocity(x0, x1)
        condition = drop(networks.online, batch.condition, self.label_drop, draw)
        target, weight = v, torch.where(average, alpha, 1.0)
        if alpha < 1:  # at 1 it is flow matching of every step, whatever the shift
            i = average.nonzero().squeeze(1)
            joined = self.joined(networks.online, x_t[i], t[i], d[i], rows(condition, i), v[i], alpha)
            target = v.index_copy(0, i, joined.to(v.dtype))
        return Targets(Query(x_t, t, d, condition), target, average.long(), weight)

    @torch.no_grad()
    def joined(
        self, network: Network, x_t: Tensor, t: Tensor, d: Tensor, condition: Condition, v: Tensor, alpha: float
    ) -> Tensor:
        """Return the average velocity of a first part ``alpha d`` by v and the network's rest (eq. 8)."""
        if self.shift == "network":
            v = network(x_t, t, alpha * d, condition)
        rest = network(advance(x_t, alpha * d, v), t + alpha * d, (1 - alpha) * d, condition)
        return alpha * v + (1 - alpha) * rest

    def error(self, prediction: Tensor, target: Tensor, query: Query) -> Tensor:
        """Return the adaptively weighted squared error, [B]."""
        return adaptive_error(prediction, target, self.adaptive_floor)

    @property
    def cost(self) -> float:
        """Cost relative to flow matching, averaged over the run: while alpha is 1 targets take no forward pass."""
        steps = 1000
        below = sum(self.alpha(step / steps) < 1 for step in range(steps)) / steps
        return (3 + self.share * below * (2 if self.shift == "network" else 1)) / 3
