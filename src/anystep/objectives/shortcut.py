"""Shortcut models: one network, one training run, any number of steps."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Interval
from torch import Tensor

from anystep.core.errors import UsageError
from anystep.core.fields import Fraction, PositiveFloat, PowerOfTwo
from anystep.core.random import Draw
from anystep.flow.condition import Condition, ConditionSpec, cat, rows
from anystep.flow.guidance import GuidanceRule, NullTraining, guide, in_interval
from anystep.flow.ladder import Ladder, Order, Schedule, Step, TimeLaw, flow_time, shortcut_schedule
from anystep.flow.network import Network, null
from anystep.flow.path import advance, interpolate, velocity
from anystep.flow.progress import PhaseProgress
from anystep.flow.query import Query
from anystep.objectives.base import Batch, Networks, Objective, Targets, check_built_in, drop

#: level of a row that regresses an empirical velocity
FLOW_ROW = -1

LevelLaw = Literal["equal", "random"]
DropRows = Literal["flow", "all"]
CfgLevels = Literal["finest", "all"]


@dataclass(frozen=True)
class Shortcut(Objective):
    """Train the average velocity over every step of the dyadic ladder (Frans et al. 2024, Algorithm 1, eq. 4 and 5).

    ::

        x0 ~ N(0, I),  x1 ~ D,  (d, t) ~ p(d, t),  x_t = (1 - t) x0 + t x1
        flow rows, 1 - share of the batch:
            query (x_t, t, 0),   target x1 - x0
        self-consistency rows, share of the batch:               s- = moving average of s, no gradient
            a = s-(x_t, t, d)                                    first small step
            x' = x_t + d a                                       follow the ODE
            b = s-(x', t + d, d)                                 second small step
            query (x_t, t, 2d),  target (a + b) / 2              (eq. 4; at d = 1/M both steps ask for d = 0)
        minimise the mean over all rows of |s(query) - target|^2 (eq. 5)

    Differs from the paper's print: eq. 4 has `t` in its second term, Algorithm 1 `t + d`; we follow the algorithm.
    Differs from the released code: share 1/8, sigma_min 1e-5 and clip 4 there, and the last rows of a batch unused.
    Cost (3 + 2 share) / 3 of flow matching's; no JVP, so fused attention and `torch.compile` work unchanged.
    """

    name: ClassVar[str] = "shortcut"
    uses_step: ClassVar[bool] = True
    uses_target: ClassVar[bool] = True

    share: Fraction = 0.25
    """Share of self-consistency rows in the global batch, in [0, 1] (Frans et al. 2024, Table 3: 1/4; released code:
    1/8)."""
    M: Annotated[int, PowerOfTwo] = 128
    """Number of smallest steps, a power of two (Frans et al. 2024, section 3.1). Small images do well with fewer."""
    level: LevelLaw = "equal"
    """`equal`: every level has the same number of rows, the remainder goes to d = 1; `random`: drawn uniformly."""
    time: TimeLaw = "discrete"
    """Law of t in flow rows: `discrete` (multiples of 1/M), `uniform`, or `logit_normal`."""
    label_drop: Fraction = 0.1
    """Probability that a label becomes the null label, in [0, 1] (Frans et al. 2024, Table 3)."""
    label_drop_rows: DropRows = "flow"
    """Rows whose labels are dropped; with `flow` (as released) the null label is untrained at d > 0."""
    guidance: Annotated[float, Interval(ge=0, le=100)] = 1.0
    """Guidance scale W built into the self-consistency targets; 1 means none (Frans et al. 2024, Table 3: 1.5 on
    ImageNet)."""
    cfg_levels: CfgLevels = "finest"
    """Rows that are guided: `finest`, whose half steps are at d = 0 (Frans et al. 2024), or `all`, which compounds to
    W^log2(M)."""
    interval: Fraction = 0.0
    """Time in [0, 1] from which on guided rows are guided, 0: always. Frans et al. 2024 has none; iSM's 0.3 is
    second-hand."""
    clip: PositiveFloat | None = None
    """Clip x' and targets to +-clip; None does not. The released code has 4, for unit-variance latents."""
    sigma_min: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Noise left at t = 1, in [0, 1); the released code has 1e-5, the paper 0."""
    order: Order = "small_last"
    """Where a budget that is no power of two has its small steps: `small_last` (at the data) or `small_first`."""

    def check(self, conditions: ConditionSpec) -> None:
        """Raise ValueError for guidance on data without classes, or with a null label that nothing would train."""
        check_built_in(self.guidance, self.label_drop, conditions)

    def check_batch(self, batch: int) -> None:
        """Raise ValueError when fewer rows than levels would train d = 1 only, silently."""
        rows, levels = round(self.share * batch), self.ladder.levels
        if self.share > 0 and self.level == "equal" and rows < levels:
            raise UsageError(
                f"objective.share {self.share:g} of training.batch {batch} is {rows} rows, fewer than the {levels} "
                f"levels of M = {self.M}: raise training.batch to {math.ceil(levels / self.share)}, lower objective.M, "
                "or set objective.level to random"
            )

    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
        """Map a batch to the regression of Algorithm 1."""
        assert networks.target is not None
        x0, x1 = batch.x0, batch.x1  # [B, ...]
        level = self.draw_levels(draw)  # [B], FLOW_ROW or j: half steps of 2^j / M
        d = self.ladder.half_step(level)  # [B]
        u = draw.uniform("time")
        t = torch.where(level == FLOW_ROW, flow_time(u, self.time, self.M), (u / (2 * d)).floor() * (2 * d))
        x_t = interpolate(x0, x1, t, self.sigma_min)
        kept = (level != FLOW_ROW) & (self.label_drop_rows == "flow")
        condition = drop(networks.online, batch.condition, self.label_drop, draw, kept)
        target = velocity(x0, x1, self.sigma_min)

        if self.share > 0:
            index = (level != FLOW_ROW).nonzero().squeeze(1)
            half, given = (x_t[index], t[index], d[index], level[index]), rows(condition, index)
            joined = self.two_half_steps(networks.target, *half, given)
            target = target.index_copy(0, index, joined.to(target.dtype))
        return Targets(
            query=Query(x_t, t, d=torch.where(level == FLOW_ROW, 0.0, 2 * d), condition=condition),
            target=target,
            tag=level + 1,
        )

    def draw_levels(self, draw: Draw) -> Tensor:
        """Return each of our rows' level, or FLOW_ROW; shares are counted on the global batch.

        Self-consistency rows are spread evenly over the batch, so that every rank and micro-batch has its share.
        """
        chosen = draw.spread(self.share)  # [total]
        level = torch.full((draw.total,), FLOW_ROW)
        level[chosen] = self.ladder.equal_share(int(chosen.sum()))
        level = draw.ours(level)
        if self.level == "random":
            drawn = (draw.uniform("level") * self.ladder.levels).long()
            level = torch.where(level == FLOW_ROW, level, drawn)
        return level

    @torch.no_grad()
    def two_half_steps(
        self, network: Network, x_t: Tensor, t: Tensor, d: Tensor, level: Tensor, condition: Condition
    ) -> Tensor:
        """Return the average of two half steps of length ``d`` from (x_t, t): the target of the step 2d (eq. 4)."""
        asked = torch.where(level == 0, 0.0, d)  # d = 1/M is asked as d = 0 (Frans et al. 2024, section 3.1)
        guided = level == 0 if self.cfg_levels == "finest" else level >= 0
        index = guided.nonzero().squeeze(1) if self.guidance != 1 and condition is not None else None
        return self.joined(lambda x, t: self.average_velocity(network, x, t, asked, condition, index), x_t, t, d)

    def joined(self, s: Callable[[Tensor, Tensor], Tensor], x_t: Tensor, t: Tensor, d: Tensor) -> Tensor:
        """Return the average of two steps of length ``d`` from (x_t, t) by the velocity ``s(x, t)``."""
        a = s(x_t, t)
        x_mid = self.clipped(advance(x_t, d, a))
        b = s(x_mid, t + d)
        return self.clipped((a + b) / 2)

    def average_velocity(
        self, network: Network, x: Tensor, t: Tensor, d: Tensor, condition: Condition, guided: Tensor | None
    ) -> Tensor:
        """Return the network's velocity, with guidance in the rows of index ``guided``, in one forward pass."""
        if guided is None:
            return network(x, t, d, condition)
        both = network(
            torch.cat([x, x[guided]]),
            torch.cat([t, t[guided]]),
            torch.cat([d, d[guided]]),
            cat(condition, null(network, rows(condition, guided))),
        )
        v, v_null = both[: len(x)], both[len(x) :]
        scale = in_interval(self.guidance, t[guided], self.interval)
        return v.index_copy(0, guided, guide(v[guided], v_null, scale))

    def clipped(self, x: Tensor) -> Tensor:
        """Return ``x`` within +-clip."""
        return x if self.clip is None else x.clamp(-self.clip, self.clip)

    def schedule(self, steps: int) -> Schedule:
        """Return Algorithm 2's steps; a budget that is no power of two is made of dyadic steps."""
        return shortcut_schedule(steps, self.ladder, self.order)

    def guidance_rule(self, step: Step) -> GuidanceRule:
        """Return what guidance means at a step: d > 0 has it built in, d = 0 has not."""
        never = self.label_drop == 0
        if step.d > 0:
            dropped: NullTraining = "trained" if self.label_drop_rows == "all" else "untrained"
            return GuidanceRule(built_in=self.guidance, null="never" if never else dropped)
        scale = self.guidance if step.t >= self.interval else 1.0
        return GuidanceRule(as_trained=scale, null="never" if never else "trained")

    @property
    def ladder(self) -> Ladder:
        """The dyadic ladder of M smallest steps."""
        return Ladder(self.M)

    @property
    def tags(self) -> tuple[str, ...]:
        """``flow``, then the step that each self-consistency level trains, finest first: 1/64, ..., 1/2, 1."""
        steps = (self.M >> (level + 1) for level in range(self.ladder.levels))
        return ("flow", *("1" if n == 1 else f"1/{n}" for n in steps))

    @property
    def cost(self) -> float:
        """Cost of a training step, flow matching's being 1: (3 + 2 share) / 3 (Frans et al. 2024, footnote 2), more
        with guidance."""
        guided = 0.0 if self.guidance == 1 else 1.0 if self.cfg_levels == "all" else 1 / self.ladder.levels
        return (3 + 2 * self.share * (1 + guided)) / 3
