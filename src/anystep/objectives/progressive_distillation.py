"""Progressive distillation: a student learns two steps of its teacher as one, then becomes the teacher."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from anystep.core.fields import PositiveFloat
from anystep.core.random import Draw
from anystep.flow.guidance import guided_velocity
from anystep.flow.ladder import Schedule
from anystep.flow.path import advance, interpolate
from anystep.flow.query import PhaseProgress, Query
from anystep.objectives.base import Batch, Networks, Phase, Targets, guided_passes
from anystep.objectives.distillation import Distillation
from anystep.objectives.shortcut import Shortcut


@dataclass(frozen=True)
class ProgressiveDistillation(Distillation):
    """Halve a trained flow's number of steps until one is left (Salimans and Ho 2022; Frans et al. 2024, section B.2).

    ::

        phase "teacher": flow matching trains g                  (eq. 2)
        phases p = 0 ... log2(M) - 1, each with its step D = 2^(p+1) / M and g = the last phase's EMA, frozen:
            x0 ~ N(0, I),  x1 ~ data,  t ~ U{0, D, ..., 1 - D},  x_t = (1 - t) x0 + t x1
            a = g(x_t, t)                                        first half step, guided in phase 0
            x' = x_t + (D/2) a                                   follow the ODE
            b = g(x', t + D/2)                                   second half step, guided in phase 0
            minimise |s(x_t, t) - (a + b) / 2|^2

    The network has no step input: in each phase it learns one step size, at the end the whole step. Students keep
    every label; only the teacher's are dropped.
    Differs from the paper: Frans et al. 2024 counts 8 phases, but M = 128 is halved log2(128) = 7 times.
    Differs from Salimans and Ho: for velocities the plain squared error needs no signal-to-noise weights.
    Differs from the authors' code: sigma_min 1e-5 and clip 4 (of x' only) there. It passes the phase on as the step
    d, but its network ignores that input, so that both are the same.
    """

    name: ClassVar[str] = "progressive_distillation"
    #: without guidance: two passes of the teacher
    cost: ClassVar[float] = (3 + 2) / 3

    clip: PositiveFloat | None = None
    """Clip x' to +-clip; None does not. The authors' code has 4, for unit-variance latents."""

    def phases(self) -> tuple[Phase, ...]:
        """Return the teacher's phase, then one of equal length for each halving, named by the step it trains."""
        steps = self.tags[1:]
        share = (1 - self.teacher_share) / len(steps)
        guided = (3 + 2 * guided_passes(self.guidance)) / 3
        students = (Phase(d, self, share, guided if p == 0 else self.cost, index=p) for p, d in enumerate(steps))
        return (self.teacher_phase(), *students)

    @torch.no_grad()
    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
        """Map a batch to the average of two half steps of the teacher."""
        assert networks.teacher is not None
        phase = progress.index
        D = 2 ** (phase + 1) / self.M
        W = self.guidance if phase == 0 else 1.0
        limit = math.inf if self.clip is None else self.clip
        t = (draw.uniform("time") / D).floor() * D  # [B]
        half, zero = torch.full_like(t, D / 2), torch.zeros_like(t)
        x_t = interpolate(batch.x0, batch.x1, t, self.sigma_min)
        a = guided_velocity(networks.teacher, x_t, t, zero, batch.condition, W)
        x_mid = advance(x_t, half, a).clamp(-limit, limit)
        b = guided_velocity(networks.teacher, x_mid, t + half, zero, batch.condition, W)
        tag = torch.full_like(t, phase + 1, dtype=torch.long)
        return Targets(Query(x_t, t, zero, batch.condition), (a.to(x_t.dtype) + b) / 2, tag)

    def caution(self, schedule: Schedule, guidance: float | None) -> str | None:
        """Return a warning if a network that was distilled to one step takes more."""
        if len(schedule) == 1:
            return None
        return f"progressive distillation leaves a network of one step: {len(schedule)} steps are not what it learned"

    @property
    def tags(self) -> tuple[str, ...]:
        """``flow``, then the step that each phase trains, as a shortcut model's levels: 1/64, ..., 1/2, 1."""
        return Shortcut(M=self.M).tags
