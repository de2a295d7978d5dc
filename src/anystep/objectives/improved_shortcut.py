"""Improved shortcut models: the guidance scale is an input of the network, so that no level guides twice."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor

from anystep.core.errors import UsageError
from anystep.core.fields import Fraction, PositiveFloat, PowerOfTwo, require
from anystep.core.random import Draw, spread
from anystep.flow.condition import Condition, ConditionSpec, cat, rows, same
from anystep.flow.guidance import in_interval
from anystep.flow.ladder import Order, Schedule, TimeLaw, flow_time
from anystep.flow.network import Network, null
from anystep.flow.path import expand, interpolate, velocity
from anystep.flow.progress import PhaseProgress
from anystep.flow.query import Query
from anystep.objectives.base import Batch, Networks, Objective, Targets, drop
from anystep.objectives.shortcut import FLOW_ROW, LevelLaw, Shortcut

#: level of a row that regresses a guided velocity
GUIDED_ROW = -2


@dataclass(frozen=True)
class ImprovedShortcut(Objective):
    """Train every step of the ladder for every guidance scale W (iSM, NeurIPS 2025: intrinsic guidance).

    ::

        x0 ~ N(0, I),  x1, c ~ D,  x_t = (1 - t) x0 + t x1,  v = x1 - x0,  s- = moving average of s, no gradient
        1. velocity rows, the rest of the batch:
            query (x_t, t, c or null, 0, 1),  target v
        2. guided rows, guided_share of the batch, W > 1, never null:
            query (x_t, t, c, 0, W)
            target v + (W - 1) [t >= interval] (s-(x_t, t, c, 0, 1) - s-(x_t, t, null, 0, 1))
        3. self-consistency rows, share of the batch, every level, W >= 1, W = 1 where the label is null:
            a = s-(x_t, t, c, d, W),  x' = x_t + d a,  b = s-(x', t + d, c, d, W)
            query (x_t, t, c, 2d, W),  target (a + b) / 2    (eq. 10; at d = 1/M both steps ask for d = 0)
        minimise the mean over all rows of |s(query) - target|^2

    The paper's w is the increment W - 1. No level's target guides again: a large step has the W that it is told.
    The difference is that of the W = 1 branch: that of the W branch itself would grow to 1 / (1 - w) times the plain
    one, and without end from w = 1 on (derived; a test shows both). Before ``interval`` guidance has no effect on the
    target, but the network is told W all the same: one step from t = 0 could otherwise not be guided (derived).
    Differs from the paper's print: eq. 10 has `t` in its second half step and the online network in x'; we read both as
    slips, and have `t + d` and the moving average.
    Second-hand, not from the paper's own text: terms of equal weight (equal shares here), W - 1 in 0, 1/4, ..., 3.5,
    interval 0.3. Ours: null rows among the self-consistency rows too, so that the null label is trained at d > 0.
    Without classes W = 1 throughout, and guided rows are velocity rows.
    Cost (3 + 2 share + 2 guided_share) / 3 of flow matching's; less without classes, (3 + 2 share) / 3, which `cost`,
    not knowing the data, does not say.
    """

    name: ClassVar[str] = "improved_shortcut"
    uses_step: ClassVar[bool] = True
    uses_target: ClassVar[bool] = True
    takes_guidance: ClassVar[bool] = True

    share: Annotated[float, Interval(ge=0, lt=1)] = 1 / 3
    """Share of self-consistency rows in the global batch, in [0, 1) (second-hand: three terms of equal weight)."""
    guided_share: Annotated[float, Interval(gt=0, lt=1)] = 1 / 3
    """Share of guided rows, in (0, 1); share and guided_share leave some velocity rows (second-hand: equal weights)."""
    guidance_max: Annotated[float, Interval(gt=1, le=100)] = 4.5
    """Largest W that is trained, above 1 (second-hand: W - 1 up to 3.5)."""
    guidance_step: PositiveFloat = 0.25
    """Grid of W from 1 to guidance_max, of which it is a whole part (second-hand: 0.25)."""
    interval: Fraction = 0.3
    """Time in [0, 1] from which on guidance has an effect on the targets, 0: always (second-hand: 0.3)."""
    M: Annotated[int, PowerOfTwo] = 128
    """Number of smallest steps, a power of two (Frans et al. 2024, section 3.1). Small images do well with fewer."""
    level: LevelLaw = "equal"
    """`equal`: every level has the same number of rows, the remainder goes to d = 1; `random`: drawn uniformly."""
    time: TimeLaw = "discrete"
    """Law of t in velocity and guided rows: `discrete` (multiples of 1/M), `uniform`, or `logit_normal`."""
    label_drop: Fraction = 0.1
    """Probability that a label becomes the null label, in [0, 1], above 0 with classes; never in guided rows."""
    clip: PositiveFloat | None = None
    """Clip x' and targets of self-consistency rows to +-clip; None does not."""
    sigma_min: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Noise left at t = 1, in [0, 1)."""
    order: Order = "small_last"
    """Where a budget that is no power of two has its small steps: `small_last` (at the data) or `small_first`."""

    def check_combinations(self) -> None:
        """Raise UsageError unless some velocity rows are left, and the grid of W ends at guidance_max."""
        room = "below 1 with objective.share, so that some velocity rows are left"
        require(self.share + self.guided_share < 1 - 1e-9, "objective.guided_share", self.guided_share, room)
        whole = abs(self.scales * self.guidance_step - (self.guidance_max - 1)) < 1e-9 and self.scales > 0
        rule = f"a whole part of objective.guidance_max - 1 = {self.guidance_max - 1:g}"
        require(whole, "objective.guidance_step", self.guidance_step, rule)

    @property
    def plain(self) -> Shortcut:
        """The shortcut model whose ladder, draws of (t, d) and two half steps this one has."""
        return Shortcut(
            share=self.share,
            M=self.M,
            level=self.level,
            time=self.time,
            label_drop=self.label_drop,
            interval=self.interval,
            clip=self.clip,
            sigma_min=self.sigma_min,
            order=self.order,
        )

    def check(self, conditions: ConditionSpec) -> None:
        """Raise ValueError when the null label, which guidance is a difference from, would never be trained."""
        if conditions and self.label_drop == 0:
            raise UsageError("objective.guidance_max needs a trained null label: set objective.label_drop, e.g. to 0.1")

    def check_batch(self, batch: int) -> None:
        """Raise ValueError when fewer self-consistency rows than levels would train d = 1 only."""
        self.plain.check_batch(batch)

    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
        """Map a batch to the regression of the three terms."""
        assert networks.target is not None
        x0, x1 = batch.x0, batch.x1  # [B, ...]
        level = self.draw_levels(draw)  # [B]: FLOW_ROW, GUIDED_ROW, or j: half steps of 2^j / M
        d = self.plain.ladder.half_step(level)  # [B]
        u = draw.uniform("time")
        t = torch.where(level < 0, flow_time(u, self.time, self.M), (u / (2 * d)).floor() * (2 * d))
        x_t = interpolate(x0, x1, t, self.sigma_min)
        condition = drop(networks.online, batch.condition, self.label_drop, draw, kept=level == GUIDED_ROW)
        W = self.draw_guidance(networks.online, draw, level, condition)  # [B]
        target = velocity(x0, x1, self.sigma_min)

        if condition is not None:
            index = (level == GUIDED_ROW).nonzero().squeeze(1)
            given = rows(condition, index)
            guided = self.guided(networks.target, x_t[index], t[index], given, W[index], target[index])
            target = target.index_copy(0, index, guided.to(target.dtype))
        index = (level >= 0).nonzero().squeeze(1)
        half, given = (x_t[index], t[index], d[index], level[index]), rows(condition, index)
        joined = self.two_half_steps(networks.target, *half, given, W[index])
        target = target.index_copy(0, index, joined.to(target.dtype))
        return Targets(
            query=Query(x_t, t, d=torch.where(level < 0, 0.0, 2 * d), condition=condition, guidance=W),
            target=target,
            tag=torch.where(level == FLOW_ROW, 0, torch.where(level == GUIDED_ROW, 1, level + 2)),
        )

    def draw_levels(self, draw: Draw) -> Tensor:
        """Return each of our rows' level, FLOW_ROW or GUIDED_ROW; all three spread evenly over the global batch."""
        others = (~draw.spread(self.share)).nonzero().squeeze(1)
        guided = torch.zeros(draw.total, dtype=torch.bool)
        guided[others] = spread(len(others), self.guided_share / (1 - self.share))
        return torch.where(draw.ours(guided), GUIDED_ROW, self.plain.draw_levels(draw))

    def draw_guidance(self, network: Network, draw: Draw, level: Tensor, condition: Condition) -> Tensor:
        """Return each row's W: of the grid above 1 in guided rows, of all of it at d > 0, else 1, and 1 for null."""
        if condition is None:
            return torch.ones_like(level, dtype=torch.float32)
        u = draw.uniform("guidance")
        place = torch.where(level == GUIDED_ROW, 1 + (u * self.scales).floor(), (u * (self.scales + 1)).floor())
        plain = (level == FLOW_ROW) | same(condition, null(network, condition))
        return torch.where(plain, 1.0, 1 + place * self.guidance_step)

    @torch.no_grad()
    def guided(self, network: Network, x_t: Tensor, t: Tensor, condition: Condition, W: Tensor, v: Tensor) -> Tensor:
        """Return ``v`` with the guidance W, by the difference that the label makes at W = 1, in one forward pass."""
        zero, both = torch.zeros_like(t).repeat(2), cat(condition, null(network, condition))
        s_given, s_null = network(torch.cat([x_t, x_t]), torch.cat([t, t]), zero, both).chunk(2)
        return v + expand(in_interval(W, t, self.interval) - 1, v) * (s_given - s_null)

    @torch.no_grad()
    def two_half_steps(
        self, network: Network, x_t: Tensor, t: Tensor, d: Tensor, level: Tensor, condition: Condition, W: Tensor
    ) -> Tensor:
        """Return the average of two half steps of length ``d`` from (x_t, t), both told W: the target of 2d."""
        asked = torch.where(level == 0, 0.0, d)  # d = 1/M is asked as d = 0 (Frans et al. 2024, section 3.1)
        return self.plain.joined(lambda x, t: network(x, t, asked, condition, W), x_t, t, d)

    def schedule(self, steps: int) -> Schedule:
        """Return Algorithm 2's steps; a budget that is no power of two is made of dyadic steps."""
        return self.plain.schedule(steps)

    def caution(self, schedule: Schedule, guidance: float | None) -> str | None:
        """Say so when the network would be told a scale outside those that it was trained for."""
        if guidance in {None, 0} or 1 <= guidance <= self.guidance_max:
            return None
        return f"guidance {guidance:g} is outside 1 ... {self.guidance_max:g}, which this model was trained for"

    @property
    def scales(self) -> int:
        """Number of scales above 1 on the grid of W."""
        return round((self.guidance_max - 1) / self.guidance_step)

    @property
    def tags(self) -> tuple[str, ...]:
        """``flow``, ``guided``, then the step that each self-consistency level trains, finest first."""
        flow, *steps = self.plain.tags
        return (flow, "guided", *steps)

    @property
    def cost(self) -> float:
        """Cost of an update with classes: two forward passes of the moving average in all but the velocity rows.

        Without classes it is less, that of `plain`.
        """
        return (3 + 2 * self.share + 2 * self.guided_share) / 3
