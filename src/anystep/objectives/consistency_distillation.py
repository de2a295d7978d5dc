"""Consistency distillation: points on one path of a trained flow should agree about where it ends."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from anystep.core.random import Draw
from anystep.flow.guidance import guided_velocity
from anystep.flow.ladder import Schedule, flow_time, instantaneous_schedule
from anystep.flow.path import advance, data_from_velocity, interpolate, velocity_to_data
from anystep.flow.progress import PhaseProgress
from anystep.flow.query import Query
from anystep.objectives.base import Batch, Networks, Phase, Targets
from anystep.objectives.distillation import Distillation


@dataclass(frozen=True)
class ConsistencyDistillation(Distillation):
    """Train the velocity that leads straight to a teacher's end point (Frans et al. 2024, section B.2; Song et al.
    2023, Algorithm 2).

    ::

        phase "teacher": flow matching trains g                  (eq. 2); frozen from here on
        phase "consistency", d = 1/M:                            f- = moving average of f, no gradient
            x0 ~ N(0, I),  x1 ~ D,  t ~ U{0, d, ..., 1 - d},  x_t = (1 - t) x0 + t x1
            x' = x_t + d g(x_t, t)                               the teacher's small step
            x1hat = x' + (1 - t - d) f-(x', t + d)               where the student says that it ends
            minimise |f(x_t, t) - (x1hat - x_t) / (1 - t)|^2

    The last step, t = 1 - d, has the teacher's own velocity as its target: the boundary needs no skip connection.
    Sampled by jumps to the end with fresh noise in between (Song et al., Algorithm 1). The student keeps every label:
    only the teacher's are dropped.
    Differs from the released code: sigma_min 1e-5 and x' clipped to +-4 there, and samples of more than one step by
    Euler steps of f, which are off the teacher's path wherever that bends.
    Goes beyond the paper: `guidance`, which neither Frans et al. 2024 nor its code gives this teacher.
    """

    name: ClassVar[str] = "consistency_distillation"
    uses_target: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True

    def phases(self) -> tuple[Phase, ...]:
        """Return the teacher's phase, then the student's."""
        return (self.teacher_phase(), Phase("consistency", self, 1 - self.teacher_share, cost=self.cost))

    @torch.no_grad()
    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
        """Map a batch to velocities that lead to where the student's average says the teacher's path ends."""
        assert networks.teacher is not None and networks.target is not None
        t = flow_time(draw.uniform("time"), "discrete", self.M)  # [B], multiples of d
        d, none = torch.full_like(t, 1 / self.M), torch.zeros_like(t)
        x_t = interpolate(batch.x0, batch.x1, t, self.sigma_min)
        v = guided_velocity(networks.teacher, x_t, t, none, batch.condition, self.guidance)
        x_next = advance(x_t, d, v)
        # at t + d = 1 the answer weighs nothing
        x1 = data_from_velocity(x_next, t + d, networks.target(x_next, t + d, none, batch.condition))
        return Targets(
            query=Query(x_t, t, d=none, condition=batch.condition),
            target=velocity_to_data(x_t, t, x1),
            tag=torch.ones_like(t, dtype=torch.long),
        )

    def schedule(self, steps: int) -> Schedule:
        """Return equal steps from t = 0; each is a jump to the end, then back to the next one's t."""
        return instantaneous_schedule(steps)

    @property
    def tags(self) -> tuple[str, ...]:
        """``flow`` while the teacher is trained, then ``consistency``."""
        return ("flow", "consistency")

    @property
    def cost(self) -> float:
        """Cost of an update: a pass of the teacher (two with guidance) and one of the average, (3 + 2) / 3."""
        return (3 + (1 if self.guidance in {0, 1} else 2) + 1) / 3
