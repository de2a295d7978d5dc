"""Live reflow: flow matching and its own distillation to one step, in one run."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Interval
from torch import Tensor

from anystep.core.errors import UsageError
from anystep.core.fields import Fraction, PowerOfTwo
from anystep.core.random import Draw
from anystep.flow.condition import ConditionSpec, rows
from anystep.flow.guidance import GuidanceRule
from anystep.flow.ladder import Schedule, Step, TimeLaw, flow_time, instantaneous_schedule
from anystep.flow.path import interpolate, velocity
from anystep.flow.progress import PhaseProgress
from anystep.flow.query import Query
from anystep.flow.sampling import sample
from anystep.objectives.base import Batch, Networks, Objective, Targets, check_built_in, drop


@dataclass(frozen=True)
class LiveReflow(Objective):
    """Train a flow at d = 0 and, at d = 1, the straight paths to the samples that it makes meanwhile (Frans et al.
    2024, section B.2).

    ::

        x0 ~ N(0, I),  x1 ~ D,  t ~ p(t),  x_t = (1 - t) x0 + t x1
        flow rows, 1 - share of the batch:
            query (x_t, t, 0),   target x1 - x0                  (eq. 2)
        reflow rows, share of the batch:                         no gradient
            x1 = x0 carried to data by s in `generation_steps` Euler steps at d = 0, guided
            query (x_t, t, 1),   target x1 - x0
        minimise the mean over all rows of |s(query) - target|^2

    One step asks for d = 1. Any other number asks for d = 0: no other d is trained.
    Differs from the released code: share 1/8 and sigma_min 1e-5 there (which its reflow targets leave out), and its
    samplers ask for d between 0 and 1, or d = 1 at every step.
    Samples come from the network itself, not its average, as in the released code; the paper does not say.
    """

    name: ClassVar[str] = "live_reflow"
    uses_step: ClassVar[bool] = True

    share: Annotated[float, Interval(gt=0, lt=1)] = 0.25
    """Share of reflow rows in the global batch, in (0, 1) (Frans et al. 2024, section B.2: 1/4; released code: 1/8)."""
    generation_steps: Annotated[int, Ge(1)] = 8
    """Euler steps that a reflow row's sample is made in, at least 1 (Frans et al. 2024, section B.2)."""
    guidance: Annotated[float, Interval(ge=0, le=100)] = 1.0
    """Guidance scale W of those samples; 1 means none (Frans et al. 2024, Table 3: 1.5 on ImageNet)."""
    time: TimeLaw = "discrete"
    """Law of t in all rows: `discrete` (multiples of 1/M), `uniform`, or `logit_normal`."""
    M: Annotated[int, PowerOfTwo] = 128
    """Number of smallest steps, a power of two (Frans et al. 2024, section 3.1): `time=discrete` and a network's log2
    step encoding use it."""
    label_drop: Fraction = 0.1
    """Probability that a label becomes the null label, in [0, 1]; reflow rows keep theirs (Frans et al. 2024, Table
    3)."""
    sigma_min: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Noise left at t = 1, in [0, 1); the released code has 1e-5, the paper 0."""

    def check(self, conditions: ConditionSpec) -> None:
        """Raise ValueError for guidance on data without classes, or with a null label that nothing would train."""
        check_built_in(self.guidance, self.label_drop, conditions)

    def check_batch(self, batch: int) -> None:
        """Raise ValueError when the batch is too small to have rows of both kinds."""
        if round(self.share * batch) in {0, batch}:
            raise UsageError(
                f"objective.share {self.share:g} of training.batch {batch} is {round(self.share * batch)} rows, which "
                "leaves no rows of one kind: raise training.batch, or set objective.share nearer to 0.5"
            )

    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
        """Map a batch to velocities of straight paths, to data at d = 0 and to the network's own samples at d = 1."""
        x0, x1 = batch.x0, batch.x1  # [B, ...]
        reflow = self.reflow_rows(draw)  # [B]
        t = flow_time(draw.uniform("time"), self.time, self.M)
        condition = drop(networks.online, batch.condition, self.label_drop, draw, kept=reflow)
        index = reflow.nonzero().squeeze(1)
        made = sample(
            networks.online,
            x0[index],
            steps=instantaneous_schedule(self.generation_steps),
            condition=rows(condition, index),
            guidance=self.guidance,
        )
        x1 = x1.index_copy(0, index, made)
        return Targets(
            query=Query(interpolate(x0, x1, t, self.sigma_min), t, d=reflow.to(t.dtype), condition=condition),
            target=velocity(x0, x1, self.sigma_min),
            tag=reflow.long(),
        )

    def reflow_rows(self, draw: Draw) -> Tensor:
        """Return which of our rows are reflow rows, bool [our rows]: spread evenly over the global batch."""
        return draw.ours(draw.spread(self.share))

    def schedule(self, steps: int) -> Schedule:
        """Return one step at d = 1, or equal Euler steps at d = 0."""
        return [Step(0.0, 1.0, d=1.0)] if steps == 1 else instantaneous_schedule(steps)

    def guidance_rule(self, step: Step) -> GuidanceRule:
        """Return what guidance means at a step: d = 1 has it built in and never saw null, d = 0 was not guided."""
        if step.d > 0:
            return GuidanceRule(built_in=self.guidance, null="untrained" if self.label_drop > 0 else "never")
        return GuidanceRule(as_trained=self.guidance, null="trained" if self.label_drop > 0 else "never")

    @property
    def tags(self) -> tuple[str, ...]:
        """``flow``, then ``1``: the step that reflow rows train."""
        return ("flow", "1")

    @property
    def cost(self) -> float:
        """Cost of an update: (3 + share n) / 3 with samples of n steps, a guided step counted twice."""
        return (3 + self.share * self.generation_steps * (1 if self.guidance in {0, 1} else 2)) / 3
