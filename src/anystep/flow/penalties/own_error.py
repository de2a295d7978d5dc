"""A weight by an example's own error."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Interval
from torch import Tensor, nn

from anystep.core.fields import Finite, PositiveFloat
from anystep.flow.penalties.weights import RelativeWeight
from anystep.flow.query import Query


@dataclass(frozen=True)
class OwnErrorWeight(RelativeWeight):
    """Give examples with a small error a large weight, so that accurate targets are not drowned by noisy ones.

    ::

        a = running mean of the flow examples' mean squared error; of all examples in an update without flow examples
        w = min(cap, (a / (e + floor))^power)   in the examples that the objective marks, e their error; no gradient
        w = 1                                   in the others, and before the first update

    A flow example regresses one random velocity of many, so that its error stays at their variance. A self-consistency
    example regresses a prediction, with an error 30 to 100 times smaller: in an equally weighted mean its gradient is
    lost in the noise of the others. With power 1 both kinds count equally. A flow that is not learned yet gives poor
    targets: the factor can be 1 until ``none_until``, and rise to w at ``full_from``.
    """

    name: ClassVar[str] = "own_error"

    cap: Annotated[float, Ge(1), Finite] = 20.0
    """Largest factor, at least 1."""
    floor: PositiveFloat = 1e-3
    """Added to each example's error, in units of normalised data squared, greater than 0."""
    power: Annotated[float, Interval(gt=0, le=2)] = 1.0
    """Power of the ratio, in (0, 2]: 1/2 weighs half as strongly, in logarithms."""

    def ratio(self, state: nn.Module, error: float, raw: Tensor, query: Query, tag: Tensor) -> Tensor:
        """Return min(cap, (error / (raw + floor))^power), [B]."""
        return (error / (raw + self.floor)).pow(self.power).clamp(max=self.cap)
