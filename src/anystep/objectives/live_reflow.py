"""Live reflow: flow matching and its own distillation to one step, in one run."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Interval

from anystep.core.errors import UsageError, counted
from anystep.core.random import Draw
from anystep.flow.condition import rows
from anystep.flow.guidance import GuidanceRule
from anystep.flow.ladder import Schedule, Step, flow_time, instantaneous_schedule
from anystep.flow.path import interpolate, velocity
from anystep.flow.query import PhaseProgress, Query
from anystep.flow.sampling import sample
from anystep.objectives.base import Batch, GuidanceScale, Networks, Targets, drop, guided_passes
from anystep.objectives.flow_matching import FlowMatching


@dataclass(frozen=True)
class LiveReflow(FlowMatching):
    """Train a flow at d = 0 and the straight paths to its samples at d = 1 (Frans et al. 2024, section B.2).

    ::

        x0 ~ N(0, I),  x1 ~ D,  t ~ p(t),  x_t = (1 - t) x0 + t x1
        flow examples, 1 - share of the batch:
            query (x_t, t, 0),   target x1 - x0                  (eq. 2)
        reflow examples, share of the batch:                     no gradient
            x1 = s's sample from x0 in `generation_steps` Euler steps at d = 0, guided
            query (x_t, t, 1),   target x1 - x0
        minimise the mean over all examples of |s(query) - target|^2

    One step is evaluated at d = 1, any other number of steps at d = 0: no other d is trained.
    Differs from the authors' code: share 1/8 and sigma_min 1e-5 there (without it in the reflow targets), and its
    samplers evaluate d between 0 and 1, or d = 1 at every step.
    Samples come from the network itself, not its EMA, as in the authors' code; the paper leaves this open.
    """

    name: ClassVar[str] = "live_reflow"
    uses_step: ClassVar[bool] = True
    tags: ClassVar[tuple[str, ...]] = ("flow", "1")

    share: Annotated[float, Interval(gt=0, lt=1)] = 0.25
    """Fraction of reflow examples in the global batch, in (0, 1) (Frans et al. 2024: 1/4; the authors' code: 1/8)."""
    generation_steps: Annotated[int, Ge(1)] = 8
    """Euler steps that generate a reflow example, at least 1 (Frans et al. 2024, section B.2)."""
    guidance: GuidanceScale = 1.0
    """Guidance scale W of those samples; 1 means none (Frans et al. 2024, Table 3: 1.5 on ImageNet)."""

    def check_batch(self, batch: int) -> None:
        """Raise UsageError if the batch is too small to have examples of both kinds."""
        reflow = round(self.share * batch)
        if reflow in {0, batch}:
            raise UsageError(
                f"objective.share {self.share:g} of training.batch {batch} is {counted(reflow, 'example')}, which "
                "leaves none of one kind: raise training.batch, or set objective.share nearer to 0.5"
            )

    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
        """Map a batch to velocities of straight paths, to data at d = 0 and to the network's own samples at d = 1."""
        x0, x1 = batch.x0, batch.x1  # [B, ...]
        reflow = draw.ours(draw.spread(self.share))  # [B]
        t = flow_time(draw.uniform("time"), self.time, self.M)
        condition = drop(networks.online, batch.condition, self.label_drop, draw, kept=reflow)
        index = reflow.nonzero().squeeze(1)
        steps, given = instantaneous_schedule(self.generation_steps), rows(condition, index)
        generated = sample(networks.online, x0[index], steps=steps, condition=given, guidance=self.guidance)
        x1 = x1.index_copy(0, index, generated)
        x_t, target = interpolate(x0, x1, t, self.sigma_min), velocity(x0, x1, self.sigma_min)
        return Targets(Query(x_t, t, reflow.to(t.dtype), condition), target, tag=reflow.long())

    def schedule(self, steps: int) -> Schedule:
        """Return one step at d = 1, or equal Euler steps at d = 0."""
        return [Step(0.0, 1.0, d=1.0)] if steps == 1 else instantaneous_schedule(steps)

    def guidance_rule(self, step: Step) -> GuidanceRule:
        """Return what guidance means at a step: d = 1 has it built in without training null, d = 0 has none."""
        if step.d > 0:
            return GuidanceRule(built_in=self.guidance, null="untrained" if self.label_drop > 0 else "never")
        return GuidanceRule(as_trained=self.guidance, null="trained" if self.label_drop > 0 else "never")

    @property
    def cost(self) -> float:
        """Cost relative to flow matching: (3 + share n) / 3 with samples of n steps, twice n with guidance."""
        return (3 + self.share * self.generation_steps * guided_passes(self.guidance)) / 3
