"""Consistency distillation: points on one path of a trained flow should agree about where it ends."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from anystep.core.random import Draw
from anystep.flow.guidance import guided_velocity
from anystep.flow.ladder import flow_time
from anystep.flow.path import advance, interpolate
from anystep.flow.query import PhaseProgress, Query
from anystep.objectives.base import Batch, Networks, Phase, Targets, guided_passes
from anystep.objectives.consistency_training import consistency_target
from anystep.objectives.distillation import Distillation


@dataclass(frozen=True)
class ConsistencyDistillation(Distillation):
    """Train the velocity straight to the end of a teacher's path (Song et al. 2023; Frans et al. 2024, section B.2).

    ::

        phase "teacher": flow matching trains g                  (eq. 2); frozen from here on
        phase "consistency", d = 1/M:                            f- = EMA of f, no gradient
            x0 ~ N(0, I),  x1 ~ D,  t ~ U{0, d, ..., 1 - d},  x_t = (1 - t) x0 + t x1
            x' = x_t + d g(x_t, t)                               the teacher's small step
            x1hat = x' + (1 - t - d) f-(x', t + d)               the student's prediction of the path's end
            minimise |f(x_t, t) - (x1hat - x_t) / (1 - t)|^2

    The last step, t = 1 - d, has the teacher's velocity as its target: the boundary needs no skip connection.
    Sampled by one-step predictions of x1 with re-noising in between (Song et al. 2023, Algorithm 1).
    The student keeps every label; only the teacher's are dropped.
    Differs from the authors' code: sigma_min 1e-5 and x' clipped to +-4 there, and samples of more than one step by
    Euler steps of f, which leave the teacher's path wherever that bends.
    Goes beyond the paper: `guidance`, which neither Frans et al. 2024 nor its code gives this teacher.
    """

    name: ClassVar[str] = "consistency_distillation"
    uses_target: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True
    tags: ClassVar[tuple[str, ...]] = ("flow", "consistency")

    def phases(self) -> tuple[Phase, ...]:
        """Return the teacher's phase, then the student's."""
        return (self.teacher_phase(), Phase("consistency", self, 1 - self.teacher_share, cost=self.cost))

    @torch.no_grad()
    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
        """Map a batch to the velocities that lead to x1hat, as the student's EMA predicts it."""
        assert networks.teacher is not None and networks.target is not None
        t = flow_time(draw.uniform("time"), "discrete", self.M)  # [B], multiples of d
        d, zero = torch.full_like(t, 1 / self.M), torch.zeros_like(t)
        x_t = interpolate(batch.x0, batch.x1, t, self.sigma_min)
        v = guided_velocity(networks.teacher, x_t, t, zero, batch.condition, self.guidance)
        target = consistency_target(networks.target, x_t, t, advance(x_t, d, v), t + d, batch.condition)
        return Targets(Query(x_t, t, zero, batch.condition), target, tag=torch.ones_like(t, dtype=torch.long))

    @property
    def cost(self) -> float:
        """Cost relative to flow matching: a pass of the teacher (two with guidance) and one of the EMA, over 3."""
        return (3 + guided_passes(self.guidance) + 1) / 3
