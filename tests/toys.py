"""What the toy networks of the tests share."""

import torch
from torch import Tensor

from anystep.flow.condition import ConditionSpec, Entry


def feature_vector(*shape: int, drop: bool = True) -> ConditionSpec:
    """Return the spec of a lone feature of this shape (without the batch axis)."""
    return ConditionSpec({"feature": Entry("feature", shape, None, drop)})


class WithNull:
    """A network that is given class labels, of which ``num_classes`` means "nothing given"."""

    num_classes: int

    def null(self, condition: Tensor) -> Tensor:
        """Return "nothing given" for every example."""
        return torch.full_like(condition, self.num_classes)
