"""Shortcut models: one network, one training run, any number of steps."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Interval
from torch import Tensor

from anystep.core.errors import UsageError, counted
from anystep.core.fields import Fraction, PositiveFloat, require
from anystep.core.random import Draw, spread
from anystep.flow.condition import Condition, cat, rows
from anystep.flow.guidance import GuidanceRule, NullTraining, guide
from anystep.flow.ladder import Ladder, Order, Schedule, Step, flow_time, shortcut_schedule
from anystep.flow.path import advance, interpolate, velocity
from anystep.flow.query import Network, PhaseProgress, Query, null
from anystep.flow.rise import Shape, rise
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
    share_start: Fraction | None = None
    """Another fraction at the start of the run, which becomes `share` over `share_change`; None: `share` throughout."""
    share_change: tuple[Fraction, Fraction] = (0.0, 1.0)
    """Fractions of the run between which `share_start` becomes `share`."""
    share_shape: Shape = "linear"
    """How the fraction changes: by equal parts (`linear`), smoothly (`cosine`), at once in the middle (`step`)."""
    level: Literal["equal", "large", "random"] = "equal"
    """`equal`: every level has the same number of examples, the remainder goes to d = 1; `large`: a quarter each at
    d = 1 and d = 1/2, the rest equally at smaller d (`bootstrap_dt_bias` of the authors' code); `random`: uniform."""
    roll_out: Annotated[int, Interval(ge=1, le=64)] = 1
    """Steps of 2d that a self-consistency example takes, a power of two: the second is trained from the state that the
    network's own first step reaches, and so on, as far as they fit (Shortcut-CSL, ICLR 2026: 2); 1: fresh states."""
    through_state: bool = False
    """Whether the gradient of an example flows through the network's own steps that led to its state."""
    interval: Fraction = 0.0
    """Time in [0, 1] from which on targets are guided, 0: always (as in Frans et al. 2024)."""
    clip: PositiveFloat | None = None
    """Clip x' and self-consistency targets to +-clip; None does not. The authors' code has 4, for latents."""
    order: Order = "small_last"
    """Where the small steps are if their number is no power of two: `small_last` (at the data) or `small_first`."""

    def check_combinations(self) -> None:
        """Raise UsageError for a change of share that ends before it begins, or steps that are no power of two."""
        first, last = self.share_change
        require(first <= last, "objective.share_change", f"{first:g} {last:g}", "two fractions that do not decrease")
        require(not self.roll_out & (self.roll_out - 1), "objective.roll_out", self.roll_out, "a power of two")

    def check_batch(self, batch: int) -> None:
        """Raise UsageError if there are fewer self-consistency examples than levels: only d = 1 would be trained."""
        share, levels = self.largest_share, self.ladder.levels
        rows = round(share * batch / self.roll_out)
        if share > 0 and self.level != "random" and rows < levels:
            found = counted(rows, "example" if self.roll_out == 1 else "group")
            found += "" if self.roll_out == 1 else f" of {self.roll_out} examples"
            enough = math.ceil(levels * self.roll_out / share)
            raise UsageError(
                f"objective.share {share:g} of training.batch {batch} is {found}, fewer than the {levels} "
                f"levels of M = {self.M}: raise training.batch to {enough}, lower objective.M, "
                "or set objective.level to random"
            )

    def share_at(self, fraction: float) -> float:
        """Return the fraction of self-consistency examples at this fraction of the run."""
        if self.share_start is None:
            return self.share
        first, last = self.share_change
        return self.share_start + (self.share - self.share_start) * rise(fraction, first, last, self.share_shape)

    def consistent(self, draw: Draw, progress: PhaseProgress) -> Tensor:
        """Return which examples of the global batch are self-consistency examples, bool [total], spread evenly.

        With `roll_out` they are neighbours: groups of that many examples, which start from one pair of noise and data.
        """
        groups = spread(draw.total // self.roll_out, self.share_at(progress.fraction))
        return groups.repeat_interleave(self.roll_out)

    def draw_levels(self, draw: Draw, progress: PhaseProgress) -> Tensor:
        """Return the level of each of our examples, or FLOW: levels are spread evenly over the global batch.

        While a changing share gives fewer examples than there are levels, levels are drawn uniformly.
        """
        chosen, level = self.consistent(draw, progress), torch.full((draw.total,), FLOW)
        groups = int(chosen.sum()) // self.roll_out
        level[chosen] = self.spread_levels(groups).repeat_interleave(self.roll_out)
        level = draw.ours(level)
        few = self.share_start is not None and groups < self.ladder.levels
        if self.level == "random" or few:
            drawn = (draw.uniform("level") * self.ladder.levels).long()
            first = torch.arange(len(drawn), device=draw.device) // self.roll_out * self.roll_out
            level = torch.where(level == FLOW, level, drawn[first])
        return level

    def spread_levels(self, groups: int) -> Tensor:
        """Return the levels of as many examples, or groups of `roll_out`, int64 [groups], unless they are drawn."""
        return self.ladder.large_share(groups) if self.level == "large" else self.ladder.equal_share(groups)

    def draw_times(self, draw: Draw, level: Tensor) -> tuple[Tensor, Tensor]:
        """Return t and the half step d, [B]: t is a multiple of 2d, or a time of flow matching where level < 0.

        The steps of `roll_out` fit between t and 1.
        """
        d, u = self.ladder.half_step(level), draw.uniform("time")
        starts = 1 / (2 * d) - self.steps_taken(level) + 1
        return torch.where(level < 0, flow_time(u, self.time, self.M), (u * starts).floor() * (2 * d)), d

    def steps_taken(self, level: Tensor) -> Tensor:
        """Return how many steps of 2d a group takes one after the other, [B]: `roll_out`, as far as [0, 1] has them."""
        return (1 / (2 * self.ladder.half_step(level))).clamp(max=self.roll_out).where(level >= 0, 1.0)

    def rolled_out(self, network: Network, query: Query, level: Tensor) -> Query:
        """Return ``query`` with each group's states replaced by those that ``network`` reaches from its first example.

        Example n of a group is where n steps of its d lead. Gradients flow through the state with `through_state` only.
        """
        index = torch.arange(len(level), device=level.device)
        place = index % self.steps_taken(level).long()  # a group starts at a multiple of roll_out
        first, limit = index - place, math.inf if self.clip is None else self.clip
        W = None if query.guidance is None else query.guidance[first]
        x_t, t, d, condition = query.x_t[first], query.t[first] + place * query.d, query.d, rows(query.condition, first)
        for n in range(1, self.roll_out):
            i = (place == n).nonzero().squeeze(1)
            before = Query(x_t[i - 1], t[i - 1], d[i], rows(condition, i), None if W is None else W[i])
            with torch.set_grad_enabled(self.through_state and torch.is_grad_enabled()):
                step = network(before.x_t, before.t, before.d, before.condition, before.guidance)
                reached = advance(before.x_t, before.d, step).clamp(-limit, limit)
                x_t = x_t.index_copy(0, i, reached.to(x_t.dtype))
        return Query(x_t, t, d, condition, W)

    def schedule(self, steps: int) -> Schedule:
        """Return the steps of Algorithm 2; if their number is no power of two they have two sizes."""
        return shortcut_schedule(steps, self.ladder, self.order)

    @property
    def ladder(self) -> Ladder:
        """The step-size levels."""
        return Ladder(self.M)

    @property
    def group(self) -> int:
        """Number of neighbouring examples that take the steps of `roll_out` together."""
        return self.roll_out

    @property
    def marked(self) -> tuple[str, ...]:
        """The tags of the step-size levels; none without self-consistency examples."""
        return self.tags[-self.ladder.levels :] if self.largest_share > 0 else ()

    @property
    def largest_share(self) -> float:
        """Largest fraction of self-consistency examples over the run."""
        return max(self.share, self.share_start or 0.0)

    @property
    def mean_share(self) -> float:
        """Mean fraction of self-consistency examples over the run."""
        if self.share_start is None:
            return self.share
        before = sum(self.share_change) / 2
        return before * self.share_start + (1 - before) * self.share

    @property
    def level_shares(self) -> list[float]:
        """Fraction of each level among the self-consistency examples, finest first."""
        levels = self.ladder.levels
        groups = 4 * levels * max(1, levels - 2)  # whole periods of both laws
        return [count / groups for count in self.spread_levels(groups).bincount(minlength=levels).tolist()]

    @property
    def roll_out_passes(self) -> float:
        """Forward passes that lead to the state of a self-consistency example, on average; backward counts 2."""
        steps: list[float] = self.steps_taken(torch.arange(self.ladder.levels)).tolist()
        reached = sum(share * (1 - 1 / n) for share, n in zip(self.level_shares, steps, strict=True))
        return reached * (3 if self.through_state else 1)

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
        level = self.draw_levels(draw, progress)  # [B], FLOW or j: half steps of 2^j / M
        t, d = self.draw_times(draw, level)  # [B]
        x_t = interpolate(x0, x1, t, self.sigma_min)
        consistency = level != FLOW
        kept = consistency & (self.label_drop_rows == "flow")
        condition = drop(networks.online, batch.condition, self.label_drop, draw, kept)
        query, target = Query(x_t, t, torch.where(consistency, 2 * d, 0.0), condition), velocity(x0, x1, self.sigma_min)
        if self.roll_out > 1:
            query = self.rolled_out(networks.online, query, level)
        if self.largest_share > 0:
            i = consistency.nonzero().squeeze(1)
            x_t, t, condition = query.x_t[i], query.t[i], rows(query.condition, i)
            joined = self.two_half_steps(networks.target, x_t, t, d[i], level[i], condition)
            target = target.index_copy(0, i, joined.to(target.dtype))
        return Targets(query, target, tag=level + 1)

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
        guided = 0.0 if self.guidance == 1 else 1.0 if self.cfg_levels == "all" else self.level_shares[0]
        return (3 + self.mean_share * (2 * (1 + guided) + self.roll_out_passes)) / 3
