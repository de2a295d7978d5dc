"""Reflow: flow matching again, on pairs of noise and the sample that a trained flow generates from it."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from anystep.flow.guidance import GuidanceRule
from anystep.flow.ladder import Step
from anystep.objectives.base import Pairs, Phase
from anystep.objectives.distillation import Distillation


@dataclass(frozen=True)
class Reflow(Distillation):
    """Regress the straight paths between the ends of a trained flow (Liu et al. 2022; Frans et al. 2024, section B.2).

    ::

        phase "teacher": flow matching trains g                  (eq. 2); frozen from here on
        pairs:   x0 ~ N(0, I),  x1 = g's sample from x0 in `pair_steps` Euler steps, guided
        phase "reflow", (x0, x1) ~ pairs, each with its label:
            x_t = (1 - t) x0 + t x1,  t ~ p(t)
            minimise |s(x_t, t, 0) - (x1 - x0)|^2                (eq. 2)

    `targets` is flow matching's. Sampled by Euler steps of the instantaneous velocity, which the pairs have
    straightened; guidance is in the pairs, and none is used afterwards.
    Differs from the authors' code: it contains no reflow, only flow matching on given pairs, with sigma_min 1e-5.
    """

    name: ClassVar[str] = "reflow"

    pairs: Annotated[int, Ge(1)] = 50_000
    """Number of pairs, at least 1 (Frans et al. 2024, section B.2: 50k of CelebA-HQ, 1M of ImageNet)."""
    pair_steps: Annotated[int, Ge(1)] = 128
    """Euler steps that generate a pair, at least 1 (Frans et al. 2024, section 4: 128)."""

    def phases(self) -> tuple[Phase, ...]:
        """Return the teacher's phase, then flow matching on the pairs that it generates."""
        pairs = Pairs(self.pairs, self.pair_steps, self.guidance)
        return (self.teacher_phase(), Phase("reflow", self, 1 - self.teacher_share, cost=self.cost, pairs=pairs))

    def guidance_rule(self, step: Step) -> GuidanceRule:
        """Return what guidance means at a step: it is built into the pairs, and null is trained if dropped."""
        return GuidanceRule(built_in=self.guidance, null="trained" if self.label_drop > 0 else "never")
