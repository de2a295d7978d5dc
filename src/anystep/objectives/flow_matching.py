"""Flow matching, the base of the family and its many-step baseline."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval

from anystep.core.fields import Fraction, PowerOfTwo
from anystep.core.random import Draw
from anystep.flow.ladder import TimeDistribution, flow_time
from anystep.flow.path import interpolate, velocity
from anystep.flow.query import PhaseProgress, Query
from anystep.objectives.base import Batch, Networks, Objective, Targets, drop


@dataclass(frozen=True)
class FlowMatching(Objective):
    """Regress the velocity of the straight path (Frans et al. 2024, eq. 2).

    ::

        x0 ~ N(0, I),  x1 ~ D,  t ~ p(t)
        x_t = (1 - t) x0 + t x1                                  (eq. 1)
        minimise |s(x_t, t, 0) - (x1 - x0)|^2                    (eq. 2)

    Sampled by Euler steps of the instantaneous velocity; guidance takes two forward passes per step.
    """

    name: ClassVar[str] = "flow_matching"

    time: TimeDistribution = "discrete"
    """Distribution of t in flow matching: `discrete` (multiples of 1/M), `uniform`, or `logit_normal`."""
    M: Annotated[int, PowerOfTwo] = 128
    """Number of smallest steps, a power of two (Frans et al. 2024, section 3.1): `time=discrete` and a network's log2
    step encoding use it. Small images do well with fewer."""
    label_drop: Fraction = 0.1
    """Probability that a label becomes the null label, in [0, 1] (Frans et al. 2024, Table 3)."""
    sigma_min: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Noise left at t = 1, in [0, 1); the authors' code has 1e-5, the paper 0."""

    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
        """Map a batch to the velocities of its straight paths."""
        x0, x1 = batch.x0, batch.x1  # [B, ...]
        t = flow_time(draw.uniform("time"), self.time, self.M)  # [B]
        x_t, target = interpolate(x0, x1, t, self.sigma_min), velocity(x0, x1, self.sigma_min)
        condition = drop(networks.online, batch.condition, self.label_drop, draw)
        return Targets(Query(x_t, t, torch.zeros_like(t), condition), target, tag=torch.zeros_like(t, dtype=torch.long))
