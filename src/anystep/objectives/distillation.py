"""What the methods share that train their teacher first, in the same run: its settings, its phase, its guidance."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval

from anystep.core.fields import Fraction, PowerOfTwo
from anystep.flow.condition import ConditionSpec
from anystep.flow.guidance import GuidanceRule
from anystep.flow.ladder import Step, TimeLaw
from anystep.objectives.base import Objective, Phase, check_built_in
from anystep.objectives.flow_matching import FlowMatching


@dataclass(frozen=True)
class Distillation(Objective):
    """A teacher g, trained by flow matching on a share of the run's images, and a student of it on the others."""

    uses_teacher: ClassVar[bool] = True

    M: Annotated[int, PowerOfTwo] = 128
    """Number of smallest steps, a power of two: those of the teacher between noise and data (Frans et al. 2024, section
    B.2)."""
    teacher_share: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    """Share of the run's images that train the teacher, in (0, 1) (Frans et al. 2024, section B.2: 400k of 800k
    updates); nothing when the run begins with a trained one (init.run)."""
    guidance: Annotated[float, Interval(ge=0, le=100)] = 1.0
    """Guidance scale W of the teacher, built into the student; 1 means none (Frans et al. 2024, Table 3: 1.5 on
    ImageNet)."""
    time: TimeLaw = "discrete"
    """Law of t in flow matching: `discrete` (multiples of 1/M), `uniform`, or `logit_normal`."""
    label_drop: Fraction = 0.1
    """Probability that flow matching replaces a label by the null label, in [0, 1] (Frans et al. 2024, Table 3)."""
    sigma_min: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Noise left at t = 1, in [0, 1); the released code has 1e-5, the paper 0."""

    def teacher(self) -> FlowMatching:
        """Return the method that trains the teacher."""
        return FlowMatching(self.time, self.M, self.label_drop, self.sigma_min)

    def teacher_phase(self) -> Phase:
        """Return the part of the run that trains the teacher."""
        return Phase("teacher", self.teacher(), self.teacher_share, cost=1.0, teaches=True)

    def check(self, conditions: ConditionSpec) -> None:
        """Raise ValueError for guidance on data without classes, or with a null label that nothing would train."""
        check_built_in(self.guidance, self.label_drop, conditions)

    def guidance_rule(self, step: Step) -> GuidanceRule:
        """Return what guidance means at a step of a student: it keeps every label, so that null is never trained."""
        remedy = "train with objective.guidance above 1 to build it in"
        return GuidanceRule(built_in=self.guidance, null="never", remedy=remedy)
