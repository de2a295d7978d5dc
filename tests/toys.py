"""What the toy networks of the tests share."""

import torch
from torch import Tensor


class WithNull:
    """A network that is given class labels, of which ``num_classes`` means "nothing given"."""

    num_classes: int

    def null(self, condition: Tensor) -> Tensor:
        """Return "nothing given" for every example."""
        return torch.full_like(condition, self.num_classes)
