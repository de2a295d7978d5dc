"""Shortcut models: one network, one training run, any number of steps."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from anystep.core.errors import UsageError
from anystep.core.fields import Fraction, PositiveFloat
from anystep.core.random import Draw
from anystep.flow.condition import Condition, cat, rows
from anystep.flow.guidance import GuidanceRule, NullTraining, guide
from anystep.flow.ladder import Ladder, Order, Schedule, Step, flow_time, shortcut_schedule
from anystep.flow.path import advance, interpolate, velocity
from anystep.flow.query import Network, PhaseProgress, Query, null
from anystep.objectives.base import Batch, GuidanceScale, Networks, Targets, drop
from anystep.objectives.flow_matching import FlowMatching

#: level of an example that regresses an empirical velocity
FLOW = -1


@dataclass(frozen=True)
class StepLevels(FlowMatching):
    """What shortcut models and improved shortcut models share: step-size levels, each trained by two half steps.

    Level j = 0, ..., log2(M) - 1 trains the step 2^(j + 1) / M; d = 0 is trained by flow matching.
    """

    uses_step: ClassVar[bool] = True
    uses_target: ClassVar[bool] = True

    share: Fraction = 0.25
    """Fraction of self-consistency examples in the global batch, in [0, 1] (Frans et al. 2024, Table 3: 1/4)."""
    level: Literal["equal", "random"] = "equal"
    """`equal`: every level has the same number of examples, the remainder goes to d = 1; `random`: drawn uniformly."""
    interval: Fraction = 0.0
    """Time in [0, 1] from which on targets are guided, 0: always (as in Frans et al. 2024)."""
    clip: PositiveFloat | None = None
    """Clip x' and self-consistency targets to +-clip; None does not. The authors' code has 4, for latents."""
    order: Order = "small_last"
    """Where the small steps are if their number is no power of two: `small_last` (at the data) or `small_first`."""

    def check_batch(self, batch: int) -> None:
        """Raise UsageError if there are fewer self-consistency examples than levels: only d = 1 would be trained."""
        rows, levels = round(self.share * batch), self.ladder.levels
        if self.share > 0 and self.level == "equal" and rows < levels:
            raise UsageError(
                f"objective.share {self.share:g} of training.batch {batch} is {rows} examples, fewer than the {levels} "
                f"levels of M = {self.M}: raise training.batch to {math.ceil(levels / self.share)}, lower objective.M, "
                "or set objective.level to random"
            )

    def draw_levels(self, draw: Draw) -> Tensor:
        """Return the level of each of our examples, or FLOW: levels are spread evenly over the global batch."""
        chosen = draw.spread(self.share)  # [total]
        level = torch.full((draw.total,), FLOW)
        level[chosen] = self.ladder.equal_share(int(chosen.sum()))
        level = draw.ours(level)
        if self.level == "random":
            drawn = (draw.uniform("level") * self.ladder.levels).long()
            level = torch.where(level == FLOW, level, drawn)
        return level

    def draw_times(self, draw: Draw, level: Tensor) -> tuple[Tensor, Tensor]:
        """Return t and the half step d, [B]: t is a multiple of 2d, or a time of flow matching where level < 0."""
        d, u = self.ladder.half_step(level), draw.uniform("time")
        return torch.where(level < 0, flow_time(u, self.time, self.M), (u / (2 * d)).floor() * (2 * d)), d

    def schedule(self, steps: int) -> Schedule:
        """Return the steps of Algorithm 2; if their number is no power of two they have two sizes."""
        return shortcut_schedule(steps, self.ladder, self.order)

    @property
    def ladder(self) -> Ladder:
        """The step-size levels."""
        return Ladder(self.M)

    @property
    def tags(self) -> tuple[str, ...]:
        """``flow``, then the step that each level trains, finest first: 1/64, ..., 1/2, 1."""
        steps = (self.M >> (level + 1) for level in range(self.ladder.levels))
        return ("flow", *("1" if n == 1 else f"1/{n}" for n in steps))


@dataclass(frozen=True)
class Shortcut(StepLevels):
    """Train the average velocity over every step d = 1/M, ..., 1/2, 1 (Frans et al. 2024, Algorithm 1, eq. 4 and 5).

    ::

        x0 ~ N(0, I),  x1 ~ D,  (d, t) ~ p(d, t),  x_t = (1 - t) x0 + t x1
        flow examples, 1 - share of the batch:
            query (x_t, t, 0),   target x1 - x0
        self-consistency examples, share of the batch:           s- = EMA of s, no gradient
            a = s-(x_t, t, d)                                    first small step
            x' = x_t + d a                                       follow the ODE
            b = s-(x', t + d, d)                                 second small step
            query (x_t, t, 2d),  target (a + b) / 2              (eq. 4; at d = 1/M both steps are evaluated at d = 0)
        minimise the mean over all examples of |s(query) - target|^2                                         (eq. 5)

    Differs from the paper's print: eq. 4 has `t` in its second term, Algorithm 1 `t + d`; we follow the algorithm.
    Differs from the authors' code: share 1/8, sigma_min 1e-5 and clip 4 there, and the end of a batch is unused.
    Cost (3 + 2 share) / 3 of flow matching's; no JVP, so fused attention and `torch.compile` work unchanged.
    """

    name: ClassVar[str] = "shortcut"

    guidance: GuidanceScale = 1.0
    """Guidance scale W built into the targets; 1 means none (Frans et al. 2024, Table 3: 1.5 on ImageNet)."""
    cfg_levels: Literal["finest", "all"] = "finest"
    """Levels that are guided: `finest`, with half steps at d = 0, or `all`, which compounds to W^log2(M)."""
    label_drop_rows: Literal["flow", "all"] = "flow"
    """Examples whose labels are dropped; with `flow` (as in the authors' code) the null label is untrained at d > 0."""

    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
        """Map a batch to the regression of Algorithm 1."""
        assert networks.target is not None
        x0, x1 = batch.x0, batch.x1  # [B, ...]
        level = self.draw_levels(draw)  # [B], FLOW or j: half steps of 2^j / M
        t, d = self.draw_times(draw, level)  # [B]
        x_t = interpolate(x0, x1, t, self.sigma_min)
        consistency = level != FLOW
        kept = consistency & (self.label_drop_rows == "flow")
        condition = drop(networks.online, batch.condition, self.label_drop, draw, kept)
        target = velocity(x0, x1, self.sigma_min)
        if self.share > 0:
            i = consistency.nonzero().squeeze(1)
            joined = self.two_half_steps(networks.target, x_t[i], t[i], d[i], level[i], rows(condition, i))
            target = target.index_copy(0, i, joined.to(target.dtype))
        return Targets(Query(x_t, t, torch.where(consistency, 2 * d, 0.0), condition), target, tag=level + 1)

    @torch.no_grad()
    def two_half_steps(
        self, network: Network, x_t: Tensor, t: Tensor, d: Tensor, level: Tensor, condition: Condition
    ) -> Tensor:
        """Return the average velocity of two steps of length ``d`` from (x_t, t): the target of 2d (eq. 4)."""
        step_input = torch.where(level == 0, 0.0, d)  # d = 1/M is evaluated as d = 0 (section 3.1)
        limit = math.inf if self.clip is None else self.clip
        guided = (level == 0 if self.cfg_levels == "finest" else level >= 0).nonzero().squeeze(1)

        def s(x: Tensor, t: Tensor) -> Tensor:  # one forward pass, with the guided examples twice
            if self.guidance == 1 or condition is None:
                return network(x, t, step_input, condition)
            nothing = null(network, rows(condition, guided))
            x, times, steps = (torch.cat([each, each[guided]]) for each in (x, t, step_input))
            both = network(x, times, steps, cat(condition, nothing))
            v, v_null = both[: len(t)], both[len(t) :]
            W = torch.where(t[guided] >= self.interval, self.guidance, 1.0)
            return v.index_copy(0, guided, guide(v[guided], v_null, W))

        a = s(x_t, t)
        x_mid = advance(x_t, d, a).clamp(-limit, limit)
        b = s(x_mid, t + d)
        return ((a + b) / 2).clamp(-limit, limit)

    def guidance_rule(self, step: Step) -> GuidanceRule:
        """Return what guidance means at a step: d > 0 has it built in, d = 0 has not."""
        dropped: NullTraining = "trained" if step.d == 0 or self.label_drop_rows == "all" else "untrained"
        null_label = "never" if self.label_drop == 0 else dropped
        if step.d > 0:
            return GuidanceRule(built_in=self.guidance, null=null_label)
        return GuidanceRule(as_trained=self.guidance if step.t >= self.interval else 1.0, null=null_label)

    @property
    def cost(self) -> float:
        """Cost relative to flow matching: (3 + 2 share) / 3 (Frans et al. 2024, footnote 2), more with guidance."""
        guided = 0.0 if self.guidance == 1 else 1.0 if self.cfg_levels == "all" else 1 / self.ladder.levels
        return (3 + 2 * self.share * (1 + guided)) / 3
