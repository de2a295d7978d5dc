"""Consistency training in velocity space: the end-to-end few-step baseline of Frans et al. 2024."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor

from anystep.core.fields import Fraction, PowerOfTwo
from anystep.core.random import Draw
from anystep.flow.condition import Condition
from anystep.flow.ladder import Ladder
from anystep.flow.path import data_from_velocity, interpolate, velocity_to_data
from anystep.flow.query import Network, PhaseProgress, Query
from anystep.objectives.base import Batch, Networks, Objective, Targets, drop


@dataclass(frozen=True)
class ConsistencyTraining(Objective):
    """Agree with the network's prediction one bin further on the same straight path (Frans et al. 2024, section B.2).

    ::

        d = 1 / bins,  bins = 1, 2, 4, ..., M over the run, for equally long
        x0 ~ N(0, I),  x1 ~ D,  t ~ {0, d, ..., 1 - d},  t' = t + d
        x_t = (1 - t) x0 + t x1,  x_t' = (1 - t') x0 + t' x1     the same pair
        x1hat = x_t' + (1 - t') s-(x_t', t')                     s- = EMA of s, no gradient
        minimise |s(x_t, t) - (x1hat - x_t) / (1 - t)|^2

    At t' = 1 the target is x1 - x0: the boundary condition needs no skip connection. Sampled by one-step predictions of
    x1 with re-noising in between; guidance takes two forward passes per step.

    Differs from the authors' code: it stops at M/2 bins (log2 M stages), here the last of log2 M + 1 stages has M; its
    labels are never dropped, so that guidance would use an untrained null label; sigma_min is 1e-5 there. It passes the
    stage on as the step d, but its network ignores that input, so that both are the same.
    """

    name: ClassVar[str] = "consistency_training"
    uses_target: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True
    scheduled: ClassVar[bool] = True
    #: one forward pass more than flow matching, whose update counts 3
    cost: ClassVar[float] = 4 / 3

    M: Annotated[int, PowerOfTwo] = 128
    """Number of bins at the end of the run, a power of two (Frans et al. 2024, section 3.1)."""
    label_drop: Fraction = 0.1
    """Probability that a label becomes the null label, in [0, 1] (Frans et al. 2024, Table 3)."""
    sigma_min: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Noise left at t = 1, in [0, 1); the authors' code has 1e-5, the paper 0."""

    def stage(self, progress: PhaseProgress) -> int:
        """Return j = 0, ..., log2 M, in equal parts of the run: there are 2^j bins now."""
        return progress.step * (Ladder(self.M).levels + 1) // progress.steps

    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
        """Map a batch to the velocities that lead to x1hat."""
        assert networks.target is not None
        x0, x1 = batch.x0, batch.x1  # [B, ...]
        stage = self.stage(progress)
        d = 2.0**-stage
        t = (draw.uniform("time") / d).floor() * d  # [B]
        condition = drop(networks.online, batch.condition, self.label_drop, draw)
        x_t, x_later = (interpolate(x0, x1, time, self.sigma_min) for time in (t, t + d))
        target = consistency_target(networks.target, x_t, t, x_later, t + d, condition)
        return Targets(Query(x_t, t, torch.zeros_like(t), condition), target, tag=torch.where(t + d == 1, 0, stage))

    @property
    def tags(self) -> tuple[str, ...]:
        """``flow`` where t' = 1, whose target is x1 - x0; otherwise the bin's length."""
        return ("flow", *(f"1/{2**stage}" for stage in range(1, Ladder(self.M).levels + 1)))


@torch.no_grad()
def consistency_target(
    network: Network, x_t: Tensor, t: Tensor, x_later: Tensor, later: Tensor, condition: Condition
) -> Tensor:
    """Return the velocity that leads from x_t to x1hat, which ``network`` predicts at the later point of the path."""
    x1hat = data_from_velocity(x_later, later, network(x_later, later, torch.zeros_like(later), condition))
    return velocity_to_data(x_t, t, x1hat)
