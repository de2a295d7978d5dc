"""Improved consistency training (Song and Dhariwal 2023), in the coordinates of the straight path."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from anystep.core.fields import Finite, Fraction, PositiveFloat, PowerOfTwo, require
from anystep.core.random import Draw
from anystep.flow.conventions import time_from_sigma
from anystep.flow.ladder import Ladder, Schedule, instantaneous_schedule
from anystep.flow.path import expand, interpolate
from anystep.flow.penalties.pseudo_huber import pseudo_huber
from anystep.flow.query import PhaseProgress, Query
from anystep.objectives.base import Batch, Networks, Objective, Targets, drop
from anystep.objectives.consistency_training import consistency_target


@dataclass(frozen=True)
class ImprovedConsistencyTraining(Objective):
    """Consistency training without an EMA, on finer and finer noise levels (Song and Dhariwal 2023, Table 1).

    ::

        N = initial_bins * 2^j,  j = 0, ..., log2 M over the run, for equally long                   (curriculum)
        sigma_i = (noise_min^(1/rho) + i/N (noise_max^(1/rho) - noise_min^(1/rho)))^rho,  i = 0 ... N
        p(i) ~ erf(z_{i+1}) - erf(z_i),  z = (log sigma - log_mean) / (sqrt(2) log_std),  i = 0 ... N - 1
        x0 ~ N(0, I),  x1 ~ D,  sigma = sigma_{i+1},  sigma' = sigma_i
        t = 1 / (1 + sigma),  x_t = (1 - t) x0 + t x1 = (x1 + sigma x0) / (1 + sigma);  t', x_t' likewise from sigma'
        f(x_t, t) = x_t + (1 - t) s(x_t, t)                                  f- = f without gradient
        minimise (sqrt(|f(x_t, t) - f-(x_t', t')|^2 + c^2) - c) / (sigma - sigma'),  c = huber sqrt(dim)

    Sampled from sigma = noise_max by one-step predictions of x1 with re-noising in between; guidance takes two forward
    passes per step. The paper's numbers are for data of deviation 0.5; ours has 1, so that sigma and the penalty's c
    are twice as large, and the loss is the same.
    Differs from the paper: the network gets x_t and predicts a velocity, so f is x_sigma / (1 + sigma) + sigma /
    (1 + sigma) s, where EDM's skip is sigma_data^2 / (sigma_data^2 + sigma^2); f is the identity at sigma = 0 rather
    than at noise_min, where it is off by 0.4 % of a velocity. Our networks have no dropout (there 0.3 on CIFAR-10).
    Sampling steps are equal in t; the paper chooses the middle one of two. Labels are dropped, for guidance.
    """

    name: ClassVar[str] = "ict"
    stochastic: ClassVar[bool] = True
    scheduled: ClassVar[bool] = True
    tags: ClassVar[tuple[str, ...]] = ("flow", "consistency")
    #: one forward pass more than flow matching, whose update counts 3
    cost: ClassVar[float] = 4 / 3

    M: Annotated[int, PowerOfTwo] = 128
    """Factor by which the number of bins grows over the run, a power of two (section 3.4: from 10 to 1280)."""
    initial_bins: Annotated[int, Ge(1)] = 10
    """Number of bins at first, at least 1 (section 3.4: s0)."""
    noise_min: PositiveFloat = 0.004
    """Smallest sigma, above 0 (for data of unit variance: twice the paper's 0.002)."""
    noise_max: PositiveFloat = 160.0
    """Largest sigma, above `noise_min`, where samples start (for data of unit variance: twice the paper's 80)."""
    rho: PositiveFloat = 7.0
    """Spacing of sigmas, above 0: 1 is even, more is denser near the data (Karras et al. 2022)."""
    log_mean: Annotated[float, Finite] = -0.407
    """Mean of log sigma (section 3.5, for data of unit variance: P_mean -1.1, and log 2)."""
    log_std: PositiveFloat = 2.0
    """Standard deviation of log sigma, above 0 (section 3.5: P_std)."""
    huber: PositiveFloat = 0.00108
    """The pseudo-Huber penalty's c over the root of the number of elements, above 0 (section 3.3, also doubled)."""
    label_drop: Fraction = 0.1
    """Probability that a label becomes the null label, in [0, 1] (Frans et al. 2024, Table 3)."""

    def check_combinations(self) -> None:
        """Raise UsageError unless the noise levels span an interval."""
        low = self.noise_min
        require(self.noise_max > low, "objective.noise_max", self.noise_max, f"greater than noise_min ({low:g})")

    def bins(self, progress: PhaseProgress) -> int:
        """Return the number of bins now: doubled log2 M times, after equal parts of the run."""
        return self.initial_bins << (progress.step * (Ladder(self.M).levels + 1) // progress.steps)

    def sigmas(self, bins: int) -> Tensor:
        """Return the noise levels, rising, float64 [bins + 1]."""
        low, high = self.noise_min ** (1 / self.rho), self.noise_max ** (1 / self.rho)
        return torch.linspace(low, high, bins + 1, dtype=torch.float64) ** self.rho

    def probabilities(self, sigmas: Tensor) -> Tensor:
        """Return the probability of each bin: of log sigma ~ N(log_mean, log_std^2) between its two levels."""
        mass = torch.erf((sigmas.log() - self.log_mean) / (math.sqrt(2) * self.log_std)).diff()
        return mass / mass.sum()

    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
        """Map a batch to the velocities that lead to x1hat, each with the weight 1 / (sigma - sigma')."""
        x0, x1 = batch.x0, batch.x1  # [B, ...]
        sigmas = self.sigmas(self.bins(progress))
        tables = self.probabilities(sigmas).cumsum(0)[:-1], time_from_sigma(sigmas), 1 / sigmas.diff()
        edges, times, weights = (table.float().to(x1.device) for table in tables)
        i = torch.searchsorted(edges, draw.uniform("time"), right=True)  # [B]
        t, later = times[i + 1], times[i]
        condition = drop(networks.online, batch.condition, self.label_drop, draw)
        x_t, x_later = interpolate(x0, x1, t), interpolate(x0, x1, later)
        target = consistency_target(networks.online, x_t, t, x_later, later, condition)
        return Targets(Query(x_t, t, torch.zeros_like(t), condition), target, tag=torch.ones_like(i), weight=weights[i])

    def error(self, prediction: Tensor, target: Tensor, query: Query) -> Tensor:
        """Return the pseudo-Huber penalty of x1hat, [B]: its error is 1 - t times that of the velocity."""
        left = expand(1 - query.t, target).float()
        return pseudo_huber(left * prediction, left * target, self.huber * math.sqrt(target[0].numel()))

    def start(self, noise: Tensor, schedule: Schedule) -> Tensor:
        """Return x_t of the first time without the data's part: the paper's sigma x0 is (1 - t) ``noise``."""
        return (1 - schedule[0].t) * noise

    def schedule(self, steps: int) -> Schedule:
        """Return equal steps of t from noise_max's time, 1/161, on: earlier times are not trained."""
        return instantaneous_schedule(steps, start=1 / (1 + self.noise_max))
