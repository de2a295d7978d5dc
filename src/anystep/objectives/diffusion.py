"""Diffusion: noise prediction on the variance-preserving path, the baseline that DiT is."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from anystep.core.errors import UsageError
from anystep.core.fields import Fraction, PowerOfTwo
from anystep.core.random import Draw
from anystep.flow.conventions import VP_LEVELS, from_vp, vp_time, vp_times
from anystep.flow.ladder import Schedule, Step, instantaneous_schedule
from anystep.flow.path import interpolate, velocity
from anystep.flow.query import PhaseProgress, Query
from anystep.objectives.base import Batch, Networks, Objective, Targets, drop


@dataclass(frozen=True)
class Diffusion(Objective):
    """Predict the noise of the variance-preserving path (Ho et al. 2020, as in DiT), sampled by DDIM.

    ::

        x0 ~ N(0, I),  x1 ~ D,  tau ~ U{0 ... 999}
        abar = prod_{i <= tau} (1 - beta_i),  beta from 1e-4 to 0.02,  a = sqrt(abar),  b = sqrt(1 - abar)
        x_tau = a x1 + b x0
        minimise |eps(x_tau, tau) - x0|^2

    The same in our coordinates: t = a / (a + b), x_t = x_tau / (a + b) = (1 - t) x0 + t x1, and a network that predicts
    eps has the velocity v = (x_t - eps) / t. As x1 - x0 = (x_t - x0) / t, the loss is t^2 |v - (x1 - x0)|^2, and a
    DDIM step (eta = 0) is an Euler step of v, which is why one sampler serves every method.

    Differs from DiT (Peebles and Xie 2023): no learned variance, which DDIM does not use; the network takes t as input,
    not tau, of which t is a falling function. One and four steps fail (Frans et al. 2024: FID 132 to 467): the data is
    the difference of x and the noise, divided by the first time, 0.0063.
    """

    name: ClassVar[str] = "diffusion"
    predicts: ClassVar[str] = "noise"

    M: Annotated[int, PowerOfTwo] = 128
    """Number of smallest steps, a power of two: a network's log2 step encoding uses it."""
    label_drop: Fraction = 0.1
    """Probability that a label becomes the null label, in [0, 1] (Frans et al. 2024, Table 3)."""

    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
        """Map a batch to the velocities of its paths, weighted so that their error is that of the noise."""
        x0, x1 = batch.x0, batch.x1  # [B, ...]
        u = draw.uniform("time")
        t = vp_times().float().to(u.device)[(u * VP_LEVELS).long()]  # [B]
        condition = drop(networks.online, batch.condition, self.label_drop, draw)
        query = Query(interpolate(x0, x1, t), t, torch.zeros_like(t), condition)
        return Targets(query, velocity(x0, x1), tag=torch.zeros_like(t, dtype=torch.long), weight=t.square())

    def start(self, noise: Tensor, schedule: Schedule) -> Tensor:
        """Return x_t of the first time, where ``noise`` is x_tau, as in DDIM."""
        return from_vp(noise, torch.full((len(noise),), schedule[0].t, device=noise.device))

    def schedule(self, steps: int) -> Schedule:
        """Return DDIM's steps: levels in equal strides from 999 down ("trailing" spacing), then the data.

        Raises UsageError for more steps than levels: nothing in between is trained.
        """
        if steps > VP_LEVELS:
            raise UsageError(f"steps must be at most {VP_LEVELS}, the number of noise levels of diffusion, got {steps}")
        steps = len(instantaneous_schedule(steps))  # which raises UsageError unless it is an integer of at least 1
        times = [*(vp_time(round(VP_LEVELS * left / steps) - 1) for left in range(steps, 0, -1)), 1.0]
        return [Step(t, end - t, 0.0) for t, end in pairwise(times)]
