"""Progressive distillation: a student makes two steps of its teacher in one, then becomes the teacher."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from anystep.flow.check import in_range, positive, require
from anystep.flow.guidance import guided_velocity
from anystep.flow.ladder import Ladder, Schedule, TimeLaw, instantaneous_schedule
from anystep.flow.path import advance, interpolate
from anystep.objectives.base import Batch, Draw, Networks, Objective, Phase, Progress, Query, Targets, check_built_in
from anystep.objectives.flow_matching import FlowMatching
from anystep.objectives.shortcut import Shortcut


@dataclass(frozen=True)
class ProgressiveDistillation(Objective):
    """Halve the number of steps of a trained flow until one is left (P1 B.2; Salimans and Ho 2022).

    ::

        phase "teacher": flow matching trains g                  (eq. 2)
        phases p = 0 ... log2(M) - 1, each with its step D = 2^(p+1) / M and g = the last phase's average, frozen:
            x0 ~ N(0, I),  x1 ~ data,  t ~ U{0, D, ..., 1 - D},  x_t = (1 - t) x0 + t x1
            a = g(x_t, t)                                        first half step, guided in phase 0
            x' = x_t + (D/2) a                                   follow the ODE
            b = g(x', t + D/2)                                   second half step, guided in phase 0
            minimise |s(x_t, t) - (a + b) / 2|^2

    The network is never told a step: each phase means its own, and what comes out makes one step.
    Differs from the paper: P1 counts 8 phases, but M = 128 is halved log2(128) = 7 times.
    Differs from Salimans and Ho: of velocities the plain squared error needs no signal-to-noise weights.
    Differs from the released code: sigma_min 1e-5 and clip 4 (of x' only) there.
    """

    name: ClassVar[str] = "progressive_distillation"
    uses_teacher: ClassVar[bool] = True

    M: int = 128
    """Steps of the first teacher, a power of two (P1 B.2): log2 M phases halve them."""
    teacher_share: float = 0.5
    """Share of the run's images that train the first teacher, in (0, 1) (P1 B.2: 400k of 800k updates)."""
    guidance: float = 1.0
    """Guidance scale W of the first teacher, built in by phase 0; 1 means none (P1 Table 3: 1.5 on ImageNet)."""
    time: TimeLaw = "discrete"
    """Law of t while the first teacher is trained: `discrete` (multiples of 1/M), `uniform`, or `logit_normal`."""
    label_drop: float = 0.1
    """Probability that a label becomes null while the first teacher is trained, in [0, 1]; later phases keep labels."""
    clip: float | None = None
    """Clip x' to +-clip; None does not. The released code has 4, for unit-variance latents."""
    sigma_min: float = 0.0
    """Noise left at t = 1, in [0, 1); the released code has 1e-5, the paper 0."""

    def __post_init__(self) -> None:
        self.teacher()  # it checks the fields that are its own
        require(0 < self.teacher_share < 1, "objective.teacher_share", self.teacher_share, "in (0, 1)")
        in_range("objective.guidance", self.guidance, 0, 100)
        if self.clip is not None:
            positive("objective.clip", self.clip)

    def teacher(self) -> FlowMatching:
        """Return the method that trains the first teacher."""
        return FlowMatching(self.time, self.M, self.label_drop, self.sigma_min)

    def check(self, num_classes: int | None) -> None:
        """Raise ValueError for guidance on data without classes, or with a null label that nothing would train."""
        check_built_in(self.guidance, self.label_drop, num_classes)

    def phases(self) -> tuple[Phase, ...]:
        """Return the teacher's phase, then one of equal length for each halving, named by the step it trains."""
        share, levels = 1 - self.teacher_share, Ladder(self.M).levels
        guided = 1 if self.guidance in {0, 1} else 2
        return (
            Phase("teacher", self.teacher(), self.teacher_share, cost=1.0, teaches=True),
            *(
                Phase(step, self, share / levels, cost=(3 + 2 * guided) / 3 if p == 0 else self.cost, index=p)
                for p, step in enumerate(self.tags[1:])
            ),
        )

    @torch.no_grad()
    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: Progress) -> Targets:
        """Map a batch to the average of two half steps of the teacher."""
        assert networks.teacher is not None
        phase = progress.index
        step, scale = 2 ** (phase + 1) / self.M, self.guidance if phase == 0 else 1.0
        t = (draw.uniform("time") / step).floor() * step  # [B], multiples of the student's step
        half, none = torch.full_like(t, step / 2), torch.zeros_like(t)
        x_t = interpolate(batch.x0, batch.x1, t, self.sigma_min)
        a = guided_velocity(networks.teacher, x_t, t, none, batch.label, scale)
        x_mid = advance(x_t, half, a)
        if self.clip is not None:
            x_mid = x_mid.clamp(-self.clip, self.clip)
        b = guided_velocity(networks.teacher, x_mid, t + half, none, batch.label, scale)
        return Targets(
            query=Query(x_t, t, d=none, label=batch.label),
            target=(a.to(x_t.dtype) + b) / 2,
            tag=torch.full_like(t, phase + 1, dtype=torch.long),
        )

    def schedule(self, steps: int) -> Schedule:
        """Return equal steps; the network takes no d, so it makes each as if it were the one it was trained for."""
        return instantaneous_schedule(steps)

    def check_guidance(self, schedule: Schedule, guidance: float) -> None:
        """Raise ValueError: the students keep every label, so their null label is trained for nothing."""
        raise ValueError(
            f"guidance {guidance:g} asks the network for its null label, which was never distilled: leave guidance out "
            "(objective.guidance builds it in), or allow it explicitly"
        )

    def caution(self, schedule: Schedule, guidance: float | None) -> str | None:
        """Say so when a network that was distilled to one step is asked for more."""
        if len(schedule) == 1:
            return None
        return f"progressive distillation leaves a network of one step: {len(schedule)} steps are not what it learned"

    @property
    def tags(self) -> tuple[str, ...]:
        """``flow``, then the step that each phase trains, as a shortcut model's levels: 1/64, ..., 1/2, 1."""
        return Shortcut(M=self.M).tags

    @property
    def cost(self) -> float:
        """Cost of an update without guidance: (3 + 2) / 3, two passes of the teacher a row."""
        return (3 + 2) / 3
