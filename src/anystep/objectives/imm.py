"""Inductive moment matching: groups of samples pushed from two times to one must have the same distribution."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from anystep.core.errors import UsageError
from anystep.core.fields import Finite, Fraction, PositiveFloat
from anystep.core.random import Draw
from anystep.flow.ladder import Schedule, equal_schedule
from anystep.flow.path import advance, expand, interpolate, velocity
from anystep.flow.query import PhaseProgress, Query
from anystep.objectives.base import Batch, Losses, Networks, Objective, Targets, drop

#: distances below this have no gradient (Zhou et al. 2025, C.8)
NEAREST = 1e-8


@dataclass(frozen=True)
class IMM(Objective):
    """Match the moments of samples pushed to t + d from t and from a bit later (Zhou et al. 2025, Algorithm 3).

    ::

        P neighbouring examples, a group, share t ~ U(t_min, 1), t + d ~ U(t, 1);  t_min = 1/(1 + eta_max)
        eta_r = eta_t - eta_max / 2^k,  eta_t = (1 - t)/t;  t + gap <= r <= t + d                  (C.6)
        x0 ~ N(0, I),  x1 ~ data,  x_t = (1 - t) x0 + t x1,  x_r of the same x0 and x1             (4.1)
        y = x_t + d s(x_t, t, d),   y' = x_r + (t + d - r) s-(x_r, r, t + d - r)                   s- has no gradient
        k(a, b) = exp(-|a - b| / (d D)),   D elements per example                                  (4.2)
        minimise w(t) / P^2 times the sum over pairs i, j of a group of
            k(y_i, y_j) + k(y'_i, y'_j) - 2 k(y_i, y'_j)                                           (eq. 67)
        w(t) = sigmoid(b - lambda) dlambda/dt / 2 t^a / (t^2 + (1 - t)^2),  lambda = 2 log(t/(1 - t))  (eq. 13)

    This is the paper's Euler-FM with the step d as the second time ("t - s"), in the settings of its best model
    (Table 5, last column). Its t is the noise level, 1 - t here; its M is P here. Each example of a group has its own
    label and drops it independently. y' is where the average velocity of ``targets`` leads: with one particle and a
    squared error this would be alpha-Flow at alpha = (r - t)/d.
    Sampling starts at t_min, where x0 stands for x_t, as in the paper (eq. 117); all steps are equal, two steps too.
    Differs from the paper: data and noise are scaled to standard deviation 1, not 1/2, and the network gets x_t
    unscaled, not over its standard deviation. Written from the paper's text alone.
    Differs from the authors' code: one of its files gives the less noisy branch undropped labels; here both branches of
    an example have the same label, dropped or not.
    """

    name: ClassVar[str] = "imm"
    uses_step: ClassVar[bool] = True
    any_step: ClassVar[bool] = True
    #: of examples with (r - t)/d below 1e-3 the gradient in bfloat16 had cosine 0.17 with that of float32
    exact: ClassVar[bool] = True
    per_row: ClassVar[bool] = False
    tags: ClassVar[tuple[str, ...]] = ("flow", "moment")  # there are no flow examples
    #: one forward pass more than flow matching, for the less noisy branch
    cost: ClassVar[float] = (3 + 1) / 3

    particles: Annotated[int, Ge(1)] = 4
    """Examples in a group, at least 1 (Zhou et al. 2025, Table 5: M = 4); it divides the batch and its parts."""
    eta_max: PositiveFloat = 160.0
    """Largest ratio of noise to data, above 0: training and sampling start at t = 1/(1 + eta_max) (C.6)."""
    k: Annotated[int, Ge(1)] = 12
    """The second time is eta_max / 2^k less noisy, in eta; at least 1 (Table 5: 12)."""
    gap: Annotated[float, Interval(ge=0, lt=1)] = 1e-4
    """Smallest distance of the two times, in [0, 1) (Table 5: 1e-4)."""
    a: Annotated[float, Interval(ge=1, le=2)] = 2.0
    """Exponent of t in the weight, in [1, 2] (Table 5: 2; 1 is better in one step, worse in eight)."""
    b: Annotated[float, Finite] = 4.0
    """Shift of the weight's sigmoid in log-SNR; larger weighs times near the data more (Table 5: 4)."""
    label_drop: Fraction = 0.1
    """Probability that a label becomes the null label, in [0, 1] (Table 5)."""

    def check_batch(self, batch: int) -> None:
        """Raise UsageError if the batch cannot be divided into groups."""
        if batch % self.particles:
            raise UsageError(
                f"training.batch {batch} is no multiple of objective.particles {self.particles}: groups are compared"
            )

    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
        """Map a batch to queries, and the average velocities that lead to where the less noisy branch is pushed."""
        x0, x1 = batch.x0, batch.x1  # [B, ...]
        P = self.particles
        u, u_d = (draw.uniform(name)[::P].repeat_interleave(P) for name in ("time", "step"))
        t = self.t_min + (1 - self.t_min) * u  # [B]
        d = (1 - t) * u_d
        first = self.second_time(t, d) - t  # the part of d that the two branches do not share
        x_t, v = interpolate(x0, x1, t), velocity(x0, x1)
        condition = drop(networks.online, batch.condition, self.label_drop, draw)
        with torch.no_grad():
            rest = networks.online(advance(x_t, first, v), t + first, d - first, condition)
        alpha = expand(torch.where(d > 0, first / d, 1.0), v)
        target, tag = alpha * v + (1 - alpha) * rest, torch.ones_like(t, dtype=torch.long)
        return Targets(Query(x_t, t, d, condition), target, tag, self.weight(t))

    def charge(self, prediction: Tensor, targets: Targets) -> Losses:
        """Return each example's part of the loss: its group's weighted discrepancy (eq. 67)."""
        query, P = targets.query, self.particles
        assert targets.weight is not None
        elements = query.x_t.shape[1:].numel()
        x_t, u, u_other = (each.reshape(-1, P, elements) for each in (query.x_t, prediction, targets.target))
        losses = discrepancy(x_t, u, u_other, query.d.reshape(-1, P))  # [groups]
        return Losses(targets.weight * losses.repeat_interleave(P), query.t, targets.tag)

    def second_time(self, t: Tensor, d: Tensor) -> Tensor:
        """Return r in [t, t + d]: less noisy than t by a constant in eta = (1 - t)/t, and by ``gap`` at least (C.6)."""
        r = t / (1 - self.eta_max / 2**self.k * t).clamp(min=NEAREST)
        return torch.minimum(torch.maximum(r, t + self.gap), t + d)

    def weight(self, t: Tensor) -> Tensor:
        """Return w(t), [B], eq. 13 without its divisions by 1 - t: it is 0 at t = 1."""
        noise, data = (1 - t).square(), t.square()
        return (1 - t) * t ** (self.a - 1) / ((noise + data * torch.exp(torch.tensor(-self.b))) * (noise + data))

    def schedule(self, steps: int) -> Schedule:
        """Return equal steps from t_min to 1, evaluated at d = their length."""
        return equal_schedule(steps, start=self.t_min)

    @property
    def t_min(self) -> float:
        """The time at which the ratio of noise to data is eta_max: the noisiest that is trained."""
        return 1 / (1 + self.eta_max)

    @property
    def group(self) -> int:
        """Number of neighbouring examples that are compared."""
        return self.particles


def discrepancy(x_t: Tensor, u: Tensor, u_other: Tensor, d: Tensor) -> Tensor:
    """Return each group's squared MMD of ``x_t + d u`` and ``x_t + d u_other``, [G]: eq. 67 without its weight.

    ``x_t``, ``u``, ``u_other``: [G, P, D]; ``d``: [G, P]. Laplace kernel of scale d D. Distances are taken over d,
    those of x_t and of the velocities separately: the distance of a particle's two pushes is then exact for tiny d.
    """
    x_t, u, u_other = x_t.float(), u.float(), u_other.float()
    apart = (x_t[:, :, None] - x_t[:, None]) / d[:, :, None, None].clamp(min=NEAREST)  # [G, P, P, D]

    def kernel(one: Tensor, other: Tensor) -> Tensor:
        distance = (apart + one[:, :, None] - other[:, None]).square().sum(3).clamp(min=NEAREST**2).sqrt()
        return torch.exp(-distance / x_t.shape[2])

    return (kernel(u, u) + kernel(u_other, u_other) - 2 * kernel(u, u_other)).mean((1, 2))
