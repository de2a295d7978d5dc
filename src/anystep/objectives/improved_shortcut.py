"""Improved shortcut models: the guidance scale is an input of the network, so that no level guides twice."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor

from anystep.core.errors import UsageError
from anystep.core.fields import Fraction, PositiveFloat, require
from anystep.core.random import Draw, spread
from anystep.flow.condition import Condition, ConditionSpec, cat, rows, same
from anystep.flow.ladder import Schedule
from anystep.flow.path import advance, expand, interpolate, velocity
from anystep.flow.query import Network, PhaseProgress, Query, null
from anystep.objectives.base import Batch, Networks, Targets, drop
from anystep.objectives.shortcut import FLOW, StepLevels

#: level of an example that regresses a guided velocity
GUIDED = -2


@dataclass(frozen=True)
class ImprovedShortcut(StepLevels):
    """Train every step for every guidance scale W ("Improved Training Technique for Shortcut Models", NeurIPS 2025).

    ::

        x0 ~ N(0, I),  x1, c ~ D,  x_t = (1 - t) x0 + t x1,  v = x1 - x0,  s- = EMA of s, no gradient
        1. velocity examples, the rest of the batch:
            query (x_t, t, c or null, 0, 1),  target v
        2. guided examples, guided_share of the batch, W > 1, never null:
            query (x_t, t, c, 0, W)
            target v + (W - 1) [t >= interval] (s-(x_t, t, c, 0, 1) - s-(x_t, t, null, 0, 1))
        3. self-consistency examples, share of the batch, every level, W >= 1, W = 1 where the label is null:
            a = s-(x_t, t, c, d, W),  x' = x_t + d a,  b = s-(x', t + d, c, d, W)
            query (x_t, t, c, 2d, W),  target (a + b) / 2    (eq. 10; at d = 1/M both steps are evaluated at d = 0)
        minimise the mean over all examples of |s(query) - target|^2

    The paper's w is the increment W - 1. No level's target guides again: a large step is conditioned on its W.
    The difference is that of the W = 1 branch: that of the W branch itself would grow to 1 / (1 - w) times the plain
    one, and diverge for w >= 1 (derived; a test shows both). Before ``interval`` guidance has no effect on the target,
    but the network is still conditioned on W: one step from t = 0 could otherwise not be guided (derived).
    Differs from the paper's print: eq. 10 has `t` in its second half step and the online network in x', here `t + d`
    and the EMA: we read both as typos.
    Unverified, from a reading note and not from the paper: terms of equal weight (equal fractions here), W - 1 in 0,
    1/4, ..., 3.5, interval 0.3. Ours: null labels among the self-consistency examples too, so that null is trained at
    d > 0; and ``plain_share``. Without classes W = 1 throughout, and guided examples are velocity examples, which
    `cost` cannot know.
    """

    name: ClassVar[str] = "improved_shortcut"
    takes_guidance: ClassVar[bool] = True

    share: Annotated[float, Interval(ge=0, lt=1)] = 1 / 3
    """Fraction of self-consistency examples in the global batch, in [0, 1) (unverified: terms of equal weight)."""
    guided_share: Annotated[float, Interval(gt=0, lt=1)] = 1 / 3
    """Fraction of guided examples, in (0, 1); below 1 with share, so that velocity examples are left (unverified)."""
    guidance_max: Annotated[float, Interval(gt=1, le=100)] = 4.5
    """Largest W that is trained, above 1 (unverified: W - 1 up to 3.5)."""
    guidance_step: PositiveFloat = 0.25
    """Grid of W from 1 to guidance_max, which it divides evenly (unverified: 0.25)."""
    plain_share: Fraction | None = None
    """Fraction of the self-consistency examples with a label that have W = 1, in [0, 1]; None: all W of the grid are
    equally frequent (unverified)."""
    interval: Fraction = 0.3
    """Time in [0, 1] from which on guidance has an effect on the targets, 0: always (unverified: 0.3)."""

    def check_combinations(self) -> None:
        """Raise UsageError unless some velocity examples are left, and the grid of W ends at guidance_max."""
        super().check_combinations()
        room = "below 1 with objective.share, so that some velocity examples are left"
        require(self.largest_share + self.guided_share < 1 - 1e-9, "objective.guided_share", self.guided_share, room)
        whole = abs(self.scales * self.guidance_step - (self.guidance_max - 1)) < 1e-9 and self.scales > 0
        rule = f"an integer fraction of objective.guidance_max - 1 = {self.guidance_max - 1:g}"
        require(whole, "objective.guidance_step", self.guidance_step, rule)

    def check(self, conditions: ConditionSpec) -> None:
        """Raise UsageError if the null label, which guidance needs, would never be trained."""
        if conditions and self.label_drop == 0:
            raise UsageError("objective.guidance_max needs a trained null label: set objective.label_drop, e.g. to 0.1")

    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
        """Map a batch to the regression of the three terms."""
        assert networks.target is not None
        x0, x1 = batch.x0, batch.x1  # [B, ...]
        level = self.draw_levels(draw, progress)  # [B]: FLOW, GUIDED, or j: half steps of 2^j / M
        t, d = self.draw_times(draw, level)  # [B]
        x_t = interpolate(x0, x1, t, self.sigma_min)
        condition = drop(networks.online, batch.condition, self.label_drop, draw, kept=level == GUIDED)
        W = self.draw_guidance(networks.online, draw, level, condition)  # [B]
        query = Query(x_t, t, torch.where(level < 0, 0.0, 2 * d), condition, W)
        target = velocity(x0, x1, self.sigma_min)
        if self.roll_out > 1:
            query = self.rolled_out(networks.online, query, level)
            assert query.guidance is not None
            x_t, t, condition, W = query.x_t, query.t, query.condition, query.guidance
        if condition is not None:
            i = (level == GUIDED).nonzero().squeeze(1)
            guided = self.guided(networks.target, x_t[i], t[i], rows(condition, i), W[i], target[i])
            target = target.index_copy(0, i, guided.to(target.dtype))
        i = (level >= 0).nonzero().squeeze(1)
        joined = self.two_half_steps(networks.target, x_t[i], t[i], d[i], level[i], rows(condition, i), W[i])
        target = target.index_copy(0, i, joined.to(target.dtype))
        tag = torch.where(level == FLOW, 0, torch.where(level == GUIDED, 1, level + 2))
        return Targets(query, target, tag)

    def draw_levels(self, draw: Draw, progress: PhaseProgress) -> Tensor:
        """Return the level of each of our examples, FLOW or GUIDED; all are spread evenly over the global batch."""
        others = (~self.consistent(draw, progress)).nonzero().squeeze(1)
        guided = torch.zeros(draw.total, dtype=torch.bool)
        guided[others] = spread(len(others), self.guided_share / (1 - self.share_at(progress.fraction)))
        return torch.where(draw.ours(guided), GUIDED, super().draw_levels(draw, progress))

    def draw_guidance(self, network: Network, draw: Draw, level: Tensor, condition: Condition) -> Tensor:
        """Return W per example: above 1 where GUIDED, 1 or more at d > 0, else 1, and 1 where the label is null."""
        if condition is None:
            return torch.ones_like(level, dtype=torch.float32)
        u = draw.uniform("guidance")
        n = (u * (self.scales + 1)).floor()
        if self.plain_share is not None:
            above = ((u - self.plain_share) / (1 - self.plain_share) * self.scales).floor().clamp(max=self.scales - 1)
            n = torch.where(u < self.plain_share, 0.0, 1 + above)
        n = torch.where(level == GUIDED, 1 + (u * self.scales).floor(), n)
        unguided = (level == FLOW) | same(condition, null(network, condition))
        return torch.where(unguided, 1.0, 1 + n * self.guidance_step)

    @torch.no_grad()
    def guided(self, network: Network, x_t: Tensor, t: Tensor, condition: Condition, W: Tensor, v: Tensor) -> Tensor:
        """Return ``v`` guided by W: the difference of label and null is that of the W = 1 branch, in one pass."""
        both, zero = cat(condition, null(network, condition)), torch.zeros_like(t).repeat(2)
        s_given, s_null = network(torch.cat([x_t, x_t]), torch.cat([t, t]), zero, both).chunk(2)
        return v + expand(torch.where(t >= self.interval, W - 1, 0.0), v) * (s_given - s_null)

    @torch.no_grad()
    def two_half_steps(
        self, network: Network, x_t: Tensor, t: Tensor, d: Tensor, level: Tensor, condition: Condition, W: Tensor
    ) -> Tensor:
        """Return the average velocity of two steps of length ``d`` from (x_t, t): the target of 2d (eq. 10)."""
        step_input = torch.where(level == 0, 0.0, d)  # d = 1/M is evaluated as d = 0 (Frans et al. 2024, section 3.1)
        limit = math.inf if self.clip is None else self.clip
        a = network(x_t, t, step_input, condition, W)
        x_mid = advance(x_t, d, a).clamp(-limit, limit)
        b = network(x_mid, t + d, step_input, condition, W)
        return ((a + b) / 2).clamp(-limit, limit)

    def caution(self, schedule: Schedule, guidance: float | None) -> str | None:
        """Return a warning if the network would be conditioned on a scale outside those that were trained."""
        if guidance in {None, 0} or 1 <= guidance <= self.guidance_max:
            return None
        return f"guidance {guidance:g} is outside 1 ... {self.guidance_max:g}, which this model was trained for"

    @property
    def scales(self) -> int:
        """Number of scales above 1 on the grid of W."""
        return round((self.guidance_max - 1) / self.guidance_step)

    @property
    def tags(self) -> tuple[str, ...]:
        """``flow``, ``guided``, then the step that each level trains, finest first."""
        flow, *steps = super().tags
        return (flow, "guided", *steps)

    @property
    def cost(self) -> float:
        """Cost relative to flow matching, with classes: two passes for all but velocity examples."""
        return (3 + self.mean_share * (2 + self.roll_out_passes) + 2 * self.guided_share) / 3
