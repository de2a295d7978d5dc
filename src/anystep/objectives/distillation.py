"""What the methods share that first train their teacher, in the same run: options, its phase, guidance."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval

from anystep.flow.guidance import GuidanceRule
from anystep.flow.ladder import Step
from anystep.objectives.base import GuidanceScale, Phase
from anystep.objectives.flow_matching import FlowMatching


@dataclass(frozen=True)
class Distillation(FlowMatching):
    """A teacher g, trained by flow matching on a fraction of the run's images, and its student, trained on the rest."""

    uses_teacher: ClassVar[bool] = True

    teacher_share: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    """Fraction of the run's images that train the teacher, in (0, 1) (Frans et al. 2024, section B.2: 400k of 800k
    updates); ignored if the run is initialised from a trained one (init.run)."""
    guidance: GuidanceScale = 1.0
    """Guidance scale W of the teacher, built into the student; 1: none (Frans et al. 2024: 1.5 on ImageNet)."""

    def teacher_phase(self) -> Phase:
        """Return the phase that trains the teacher."""
        teacher = FlowMatching(self.time, self.M, self.label_drop, self.sigma_min)
        return Phase("teacher", teacher, self.teacher_share, cost=1.0, teaches=True)

    def guidance_rule(self, step: Step) -> GuidanceRule:
        """Return what guidance means at a step of a student that keeps every label: null is never trained."""
        remedy = "train with objective.guidance above 1 to build it in"
        return GuidanceRule(built_in=self.guidance, null="never", remedy=remedy)
