"""Which noise is paired with which data: pooled optimal transport (improved shortcut models, "scaling optimal
transport").

Some batches are pooled, and one assignment between their noise and their data is solved exactly. Only noise is
permuted: data keeps its labels, and the pool as a whole the noise that was drawn for it.

**Classes.** Here noise has the label of the example that it was drawn with. Being drawn independently of everything,
the noise of one label is a sample of N(0, I). Transport that ignores labels gives a class the part of all noise that is
nearest to its data: p(x0 | c) is no longer normal, and sampling class c from N(0, I) starts where nothing was trained.
A ``class_cost`` charges every noise that changes its label. With an infinite one each class is a separate problem and
keeps its noise: p(x0 | c) is exactly normal, in whatever order.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from anystep.core.errors import UsageError
from anystep.core.fields import Checked, Finite
from anystep.flow.condition import ConditionSpec


@dataclass(frozen=True)
class CouplingConfig(Checked, section="coupling"):
    """Which noise is paired with which data: drawn independently, or by optimal transport over pooled batches."""

    batches: Annotated[int, Ge(0)] = 0
    """Updates whose batches are pooled in one assignment (improved shortcut models: 32, of 32 examples each); 0: noise
    is independent of data, whatever `per_class` is."""
    class_cost: Annotated[float, Ge(0), Finite] = 0.0
    """Charged where noise changes its label, on top of |x0 - x1|^2 and in its unit (summed over elements), >= 0."""
    per_class: bool = False
    """Each class keeps its own noise (an infinite `class_cost`): p(x0 | class) stays exactly normal; quicker too. Data
    without labels is one class; where examples have features but no label, every one keeps its own noise."""

    def check_combinations(self) -> None:
        """Raise UsageError for options that exclude each other, or have no effect."""
        if self.per_class and self.class_cost > 0:
            raise UsageError("coupling.per_class is an infinite coupling.class_cost: set one of them")
        if self.batches == 0 and self.class_cost > 0:
            raise UsageError("coupling.class_cost has no effect without coupling.batches: set that to 1 or more")

    @property
    def by_class(self) -> str:
        """The field that makes classes count, or an empty string."""
        return "per_class" if self.per_class else "class_cost" if self.class_cost > 0 else ""

    def check(self, conditions: ConditionSpec) -> None:
        """Raise UsageError when a `class_cost` has no classes to act on."""
        if self.class_cost > 0 and conditions.num_classes is None:
            raise UsageError("coupling.class_cost needs labels, and this data has none: omit it")

    def exchanges(self, conditions: ConditionSpec) -> bool:
        """Return whether any example gets the noise of another."""
        alone = self.per_class and bool(conditions) and conditions.num_classes is None
        return self.batches > 0 and not alone


def transport_cost(x0: Tensor, x1: Tensor, label: Tensor | None = None, class_cost: float = 0.0) -> Tensor:
    """Return the cost [n, n] of pairing data i with noise j: ``-2 <x1_i, x0_j> + class_cost [c_i != c_j]``.

    It is ``|x0_j - x1_i|^2`` without the two squares, which are the same for every permutation: quicker to solve.
    ``class_cost`` is in the same unit, a squared distance over all elements of an example, and needs ``label`` [n].
    """
    dtype = torch.promote_types(x1.dtype, torch.float32)
    cost = -2 * x1.flatten(1).to(dtype) @ x0.flatten(1).to(dtype).T
    if class_cost == 0 or label is None:
        return cost
    return torch.where(label[:, None] == label, cost, cost + class_cost)


def optimal_assignment(
    x0: Tensor, x1: Tensor, solve: Callable[[Tensor], Tensor], label: Tensor | None = None, class_cost: float = 0.0
) -> Tensor:
    """Return the number of the noise that each data example gets, int64 [n]: pair ``x1`` with ``x0[assignment]``.

    It is a permutation of least total `transport_cost`; ``solve`` finds the columns of one of a cost [n, n]. With an
    infinite ``class_cost`` each class is solved separately, which also is quicker. Raises ValueError when ``solve``
    returns no permutation.
    """
    if class_cost == math.inf and label is not None:
        noise = torch.empty(len(x1), dtype=torch.int64, device=x1.device)
        for c in torch.unique(label):
            rows = (label == c).nonzero().squeeze(1)
            noise[rows] = rows[solve(transport_cost(x0[rows], x1[rows]))]
    else:
        noise = solve(transport_cost(x0, x1, label, class_cost))
    if not torch.equal(noise.sort().values, torch.arange(len(x1), device=noise.device)):
        raise ValueError(f"the solver's assignment of {len(x1)} examples is no permutation")
    return noise
