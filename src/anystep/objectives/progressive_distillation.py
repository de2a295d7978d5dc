"""Progressive distillation: a student makes two steps of its teacher in one, then becomes the teacher."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from anystep.core.fields import PositiveFloat
from anystep.core.random import Draw
from anystep.flow.guidance import guided_velocity
from anystep.flow.ladder import Ladder, Schedule, instantaneous_schedule
from anystep.flow.path import advance, interpolate
from anystep.flow.progress import PhaseProgress
from anystep.flow.query import Query
from anystep.objectives.base import Batch, Networks, Phase, Targets
from anystep.objectives.distillation import Distillation
from anystep.objectives.shortcut import Shortcut


@dataclass(frozen=True)
class ProgressiveDistillation(Distillation):
    """Halve the number of steps of a trained flow until one is left (Frans et al. 2024, section B.2; Salimans and Ho
    2022).

    ::

        phase "teacher": flow matching trains g                  (eq. 2)
        phases p = 0 ... log2(M) - 1, each with its step D = 2^(p+1) / M and g = the last phase's average, frozen:
            x0 ~ N(0, I),  x1 ~ data,  t ~ U{0, D, ..., 1 - D},  x_t = (1 - t) x0 + t x1
            a = g(x_t, t)                                        first half step, guided in phase 0
            x' = x_t + (D/2) a                                   follow the ODE
            b = g(x', t + D/2)                                   second half step, guided in phase 0
            minimise |s(x_t, t) - (a + b) / 2|^2

    The network is never told a step: each phase means its own, and what comes out makes one step. Students keep every
    label: only the teacher's are dropped.
    Differs from the paper: Frans et al. 2024 counts 8 phases, but M = 128 is halved log2(128) = 7 times.
    Differs from Salimans and Ho: of velocities the plain squared error needs no signal-to-noise weights.
    Differs from the released code: sigma_min 1e-5 and clip 4 (of x' only) there. It passes the phase on as the step
    d, but its network is built to ignore that input, so that both are the same.
    """

    name: ClassVar[str] = "progressive_distillation"

    clip: PositiveFloat | None = None
    """Clip x' to +-clip; None does not. The released code has 4, for unit-variance latents."""

    def phases(self) -> tuple[Phase, ...]:
        """Return the teacher's phase, then one of equal length for each halving, named by the step it trains."""
        share, levels = 1 - self.teacher_share, Ladder(self.M).levels
        guided = 1 if self.guidance in {0, 1} else 2
        return (
            self.teacher_phase(),
            *(
                Phase(step, self, share / levels, cost=(3 + 2 * guided) / 3 if p == 0 else self.cost, index=p)
                for p, step in enumerate(self.tags[1:])
            ),
        )

    @torch.no_grad()
    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
        """Map a batch to the average of two half steps of the teacher."""
        assert networks.teacher is not None
        phase = progress.index
        step, scale = 2 ** (phase + 1) / self.M, self.guidance if phase == 0 else 1.0
        t = (draw.uniform("time") / step).floor() * step  # [B], multiples of the student's step
        half, none = torch.full_like(t, step / 2), torch.zeros_like(t)
        x_t = interpolate(batch.x0, batch.x1, t, self.sigma_min)
        a = guided_velocity(networks.teacher, x_t, t, none, batch.condition, scale)
        x_mid = advance(x_t, half, a)
        if self.clip is not None:
            x_mid = x_mid.clamp(-self.clip, self.clip)
        b = guided_velocity(networks.teacher, x_mid, t + half, none, batch.condition, scale)
        return Targets(
            query=Query(x_t, t, d=none, condition=batch.condition),
            target=(a.to(x_t.dtype) + b) / 2,
            tag=torch.full_like(t, phase + 1, dtype=torch.long),
        )

    def schedule(self, steps: int) -> Schedule:
        """Return equal steps; the network takes no d, so it makes each as if it were the one it was trained for."""
        return instantaneous_schedule(steps)

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
