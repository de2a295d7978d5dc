"""What objectives work with: a network, the inputs that it is evaluated at, and the progress of training."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from anystep.core.errors import UsageError
from anystep.flow.condition import Condition


@runtime_checkable
class Network(Protocol):
    """A velocity field ``s(x_t, t, d, condition, guidance)``: any module of this form can be sampled from.

    ``x``: [B, ...]; ``t``, ``d``, ``guidance``: float32 [B]; ``condition``: `anystep.flow.condition`. Returns the
    average velocity from ``t`` to ``t + d``, shaped like ``x``; d = 0 is the instantaneous velocity. B may be 0. A
    network without a step or guidance input ignores it. Three optional attributes:

    - ``null(condition)`` returns "nothing given" in the form of ``condition``: required for training with dropped
      conditions, and for guidance;
    - ``takes_guidance``: whether the guidance scale W is an input (False where absent);
    - ``given(condition)``, called once when sampling starts; its result is used in place of the condition.
    """

    def __call__(
        self, x: Tensor, t: Tensor, d: Tensor, condition: Condition = None, guidance: Tensor | None = None
    ) -> Tensor:
        """Return the velocity, shaped like ``x``."""


def null(network: Network, condition: Condition) -> Condition:
    """Return "nothing given" in the form of ``condition``. Raises UsageError for a network without ``null``."""
    method = getattr(network, "null", None)
    if method is None:
        raise UsageError(
            f"{type(network).__name__} has no method null(condition), which guidance and dropped conditions need: "
            "return the condition with the null label, or NaN for features, in every example"
        )
    nothing: Condition = method(condition)
    return nothing


@dataclass(frozen=True)
class Query:
    """The inputs of the online network: x_t [B, ...], t and d [B], condition, guidance [B]."""

    x_t: Tensor
    t: Tensor
    d: Tensor
    condition: Condition = None
    guidance: Tensor | None = None


@dataclass(frozen=True)
class PhaseProgress:
    """Progress of a phase: ``step`` of its ``steps`` updates are done. ``index`` is `Phase.index`."""

    step: int
    steps: int
    index: int = 0

    @property
    def fraction(self) -> float:
        """Fraction of the phase that is done, in [0, 1)."""
        return self.step / self.steps
