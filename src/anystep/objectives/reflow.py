"""Reflow: flow matching again, on pairs of noise and data that a trained flow joined."""

from dataclasses import dataclass
from typing import ClassVar

from anystep.flow.check import at_least, in_range, require
from anystep.flow.ladder import Schedule, TimeLaw, instantaneous_schedule
from anystep.objectives.base import (
    Batch,
    Draw,
    Networks,
    Objective,
    Pairs,
    Phase,
    Progress,
    Targets,
    check_built_in,
    check_null_label,
)
from anystep.objectives.flow_matching import FlowMatching


@dataclass(frozen=True)
class Reflow(Objective):
    """Straighten a trained flow: regress the straight path between its own ends (P1 B.2; Liu et al. 2022).

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
    uses_teacher: ClassVar[bool] = True

    pairs: int = 50_000
    """Number of pairs, at least 1 (P1 B.2: 50k of CelebA-HQ, 1M of ImageNet)."""
    pair_steps: int = 128
    """Euler steps that a pair is made in, at least 1 (P1 4: 128)."""
    guidance: float = 1.0
    """Guidance scale W of the pairs; 1 means none (P1 Table 3: 1.5 on ImageNet)."""
    teacher_share: float = 0.5
    """Share of the run's images that train the teacher, in (0, 1) (P1 B.2: 400k of 800k updates)."""
    time: TimeLaw = "discrete"
    """Law of t in both phases: `discrete` (multiples of 1/M), `uniform`, or `logit_normal`."""
    M: int = 128
    """Number of smallest steps, a power of two (P1 3.1): `time=discrete` uses it."""
    label_drop: float = 0.1
    """Probability that a label becomes the null label in either phase, in [0, 1] (P1 Table 3)."""
    sigma_min: float = 0.0
    """Noise left at t = 1, in [0, 1); the released code has 1e-5, the paper 0."""

    def __post_init__(self) -> None:
        self.flow()  # it checks the fields that are its own
        at_least("objective.pairs", self.pairs, 1)
        at_least("objective.pair_steps", self.pair_steps, 1)
        require(0 < self.teacher_share < 1, "objective.teacher_share", self.teacher_share, "in (0, 1)")
        in_range("objective.guidance", self.guidance, 0, 100)

    def flow(self) -> FlowMatching:
        """Return what both phases train, on data and then on pairs."""
        return FlowMatching(self.time, self.M, self.label_drop, self.sigma_min)

    def check(self, num_classes: int | None) -> None:
        """Raise ValueError for guidance on data without classes, or with a null label that nothing would train."""
        check_built_in(self.guidance, self.label_drop, num_classes)

    def phases(self) -> tuple[Phase, ...]:
        """Return the teacher's phase, then flow matching on the pairs that it made."""
        made = Pairs(self.pairs, self.pair_steps, self.guidance)
        return (
            Phase("teacher", self.flow(), self.teacher_share, cost=1.0, teaches=True),
            Phase("reflow", self, 1 - self.teacher_share, cost=self.cost, pairs=made),
        )

    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: Progress) -> Targets:
        """Map a batch of pairs to the velocities of their straight paths: each has its own noise and label."""
        return self.flow().targets(networks, batch, draw, progress)

    def schedule(self, steps: int) -> Schedule:
        """Return equal Euler steps at d = 0."""
        return instantaneous_schedule(steps)

    def check_guidance(self, schedule: Schedule, guidance: float) -> None:
        """Raise ValueError when the pairs were guided already, or no label was dropped in training."""
        check_null_label(self.label_drop, guidance)
        if self.guidance != 1:
            raise ValueError(
                f"guidance {self.guidance:g} is already built into this model's pairs: guiding by {guidance:g} would "
                "guide twice (leave guidance out, or allow it explicitly)"
            )
