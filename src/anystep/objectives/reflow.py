"""Reflow: flow matching again, on pairs of noise and data that a trained flow joined."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from anystep.core.random import Draw
from anystep.flow.guidance import GuidanceRule
from anystep.flow.ladder import Schedule, Step, instantaneous_schedule
from anystep.flow.progress import PhaseProgress
from anystep.objectives.base import Batch, Networks, Pairs, Phase, Targets
from anystep.objectives.distillation import Distillation


@dataclass(frozen=True)
class Reflow(Distillation):
    """Straighten a trained flow: regress the straight path between its own ends (Frans et al. 2024, section B.2; Liu et
    al. 2022).

    ::

        phase "teacher": flow matching trains g                  (eq. 2); frozen from here on
        pairs:   x0 ~ N(0, I),  x1 = x0 carried to data by g in `pair_steps` Euler steps, guided
        phase "reflow", (x0, x1) ~ pairs, each with its label:
            x_t = (1 - t) x0 + t x1,  t ~ p(t)
            minimise |s(x_t, t, 0) - (x1 - x0)|^2                (eq. 2)

    Sampled by Euler steps of the instantaneous velocity, which the pairs have straightened; guidance is in the pairs,
    and none is used after.
    Differs from the released code: it holds no reflow, only flow matching on given pairs, with sigma_min 1e-5.
    """

    name: ClassVar[str] = "reflow"

    pairs: Annotated[int, Ge(1)] = 50_000
    """Number of pairs, at least 1 (Frans et al. 2024, section B.2: 50k of CelebA-HQ, 1M of ImageNet)."""
    pair_steps: Annotated[int, Ge(1)] = 128
    """Euler steps that a pair is made in, at least 1 (Frans et al. 2024, section 4: 128)."""

    def phases(self) -> tuple[Phase, ...]:
        """Return the teacher's phase, then flow matching on the pairs that it made."""
        made = Pairs(self.pairs, self.pair_steps, self.guidance)
        return (self.teacher_phase(), Phase("reflow", self, 1 - self.teacher_share, cost=self.cost, pairs=made))

    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
        """Map a batch of pairs, each with its noise and label, to the velocities of their paths, as the teacher's."""
        return self.teacher().targets(networks, batch, draw, progress)

    def schedule(self, steps: int) -> Schedule:
        """Return equal Euler steps at d = 0."""
        return instantaneous_schedule(steps)

    def guidance_rule(self, step: Step) -> GuidanceRule:
        """Return what guidance means at a step: the pairs were guided already."""
        return GuidanceRule(built_in=self.guidance, null="trained" if self.label_drop > 0 else "never")
