"""A weight by a learned error, a function of time and step size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from anystep.core.errors import UsageError
from anystep.core.fields import Finite, PositiveFloat
from anystep.flow.penalties.weights import RelativeWeight
from anystep.flow.query import PhaseProgress, Query

#: parts that t in [0, 1] is divided into, and halvings of d = 1 that are told apart: knots of f are in between
PARTS = 8
#: of f per unit of its coefficients: AdamW moves each of these by about the learning rate an update
GAIN = 16.0


@dataclass(frozen=True)
class LearnedWeight(RelativeWeight):
    """Weigh by the error that is to be expected at (t, d), learned next to the network.

    ::

        u(t, d) = log a + f(t, d)                        f: linear between 9 knots in t and in log2 d, 81 coefficients
        expected_error:  w = min(cap, a exp(-u)),        fit of u:  e exp(-u) + u,       lowest at u = log E[e]
        learned_floor:   w = min(cap, a / (e + c s)),    fit of s = exp(u):  log(1 + e/s) + 1/2 log s

    in the examples that the objective marks, e their mean squared error, a the flow examples' (see `RelativeWeight`).
    The fit is one more term of the loss; its gradient reaches the coefficients only, and that of w times the penalty
    the network only. f starts at 0, where `expected_error` has w = 1, and is learned before the weight rises too.

    `expected_error` is the log-variance of EDM2 (Karras et al. 2024: loss / exp(u) + u). `learned_floor` has
    the gradient of Decoupled MeanFlow's loss log(e/s + c) + log s, up to the factor a.
    Differs from EDM2: u depends on d too, acts on marked examples only, and is relative to a, so that the others keep
    the weight 1 and learning rates their meaning; interpolation in place of Fourier features and a layer, so that every
    (t, d) learns equally fast: no coefficient acts on all of them.
    Differs from Decoupled MeanFlow: its loss is log(e + c s), which falls as s does, so that it determines no s. We fit
    s as the squared scale of a Cauchy distribution of the error, with 1/2 log s: the mean of e / (e + s) is 1/2, so
    that s is a median of the errors.
    """

    name: ClassVar[str] = "learned"

    form: Literal["expected_error", "learned_floor"] = "expected_error"
    """By the expected error at (t, d), or by an example's own with a learned floor."""
    cap: Annotated[float, Ge(1), Finite] = 20.0
    """Largest factor, at least 1."""
    c: PositiveFloat = 0.01
    """With `learned_floor`: the floor, relative to the typical error s(t, d), greater than 0."""

    def check_combinations(self) -> None:
        """Raise UsageError for a schedule that falls, and for an option without effect."""
        super().check_combinations()
        if self.form != "learned_floor" and self.c != LearnedWeight.c:
            raise UsageError("weight.c has no effect without weight.form learned_floor: set both, or neither")

    def start(
        self, shape: tuple[int, ...], tags: Sequence[str], marked: Sequence[str], device: torch.device
    ) -> nn.Module:
        """Return the running mean a, and the coefficients of f, 0, float32 on ``device``."""
        state = super().start(shape, tags, marked, device)
        state.register_parameter("f", nn.Parameter(torch.zeros(PARTS + 1, PARTS + 1, device=device)))
        return state

    def relative(self, state: nn.Module, query: Query) -> Tensor:
        """Return f(t, d), [B], the logarithm of the learned error over a; with a gradient, in float32."""
        octave = -query.d.float().clamp(min=2.0**-PARTS).log2()  # 0 for d = 1, 8 for 1/256 and less
        knots = torch.arange(PARTS + 1, device=query.t.device)
        t, d = ((1 - (value[:, None] - knots).abs()).clamp(min=0) for value in (query.t.float() * PARTS, octave))
        # [B, 9] each; multiplied element by element, as autocast would make a matrix product one of bfloat16
        return GAIN * (t[:, :, None] * d[:, None] * state.get_parameter("f")).sum((1, 2))

    def ratio(self, state: nn.Module, error: float, raw: Tensor, query: Query, tag: Tensor) -> Tensor:
        """Return min(cap, exp(-f)), or min(cap, a / (e + c a exp(f))), [B]."""
        f = self.relative(state, query)
        w = (-f).exp() if self.form == "expected_error" else 1 / (raw / error + self.c * f.exp())
        return w.clamp(max=self.cap)

    def rows(
        self, state: nn.Module, rows: Tensor, raw: Tensor, query: Query, tag: Tensor, progress: PhaseProgress
    ) -> Tensor:
        """Return the weighted ``rows`` plus the fit of f to the errors of the marked ones, without its constant."""
        weighted, error = super().rows(state, rows, raw, query, tag, progress), float(state.get_buffer("error"))
        if error == 0:
            return weighted
        f, e = self.relative(state, query), raw / error
        fit = e * (-f).exp() + f if self.form == "expected_error" else torch.logaddexp(e.log(), f) - f / 2
        return weighted + torch.where(state.get_buffer("marked")[tag], fit, 0.0)
