"""Which noise meets which data: pooled optimal transport (improved shortcut models, "scaling optimal transport").

Some batches are pooled and one assignment between their noise and their data is solved exactly. Only noise is permuted:
data keeps its labels, and the pool as a whole the noise that was drawn for it.

**Classes.** Noise has no class of its own; here it has the label of the row that it was drawn with. As it is drawn
independently of everything, the noise of one label is a sample of N(0, I). Transport that ignores labels gives a class
the part of all noise that lies nearest its data: p(x0 | c) is normal no more, and sampling class c from N(0, I) begins
where nothing was trained. A ``class_cost`` charges every noise row that changes its label. At infinity each class is a
problem of its own and keeps its own noise: p(x0 | c) is exactly normal, however it is permuted within.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from anystep.core.errors import UsageError
from anystep.core.fields import Checked, Finite, require
from anystep.flow.condition import ConditionSpec

#: costs [n, n] -> each row's column, int64 [n]: a permutation with the least sum of costs
Solver = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CouplingConfig(Checked, section="coupling"):
    """Which noise meets which data: drawn independently, or by optimal transport over pooled batches."""

    batches: Annotated[int, Ge(0)] = 0
    """Updates whose batches are pooled in one assignment (improved shortcut models: 32, of 32 rows each); 0: noise is
    independent of data."""
    class_cost: Annotated[float, Ge(0), Finite] = 0.0
    """Charged where noise changes its label, beside |x0 - x1|^2 and in its unit (summed over elements), >= 0."""
    per_class: bool = False
    """Each class keeps its own noise (an infinite `class_cost`): p(x0 | class) stays exactly normal; quicker too."""

    def check_combinations(self) -> None:
        """Raise UsageError for options that exclude each other, or have no effect."""
        if self.per_class and self.class_cost > 0:
            raise UsageError("coupling.per_class is an infinite coupling.class_cost: set one of them")
        if self.batches == 0 and self.by_class:
            raise UsageError(f"coupling.{self.by_class} does nothing without coupling.batches: set that to 1 or more")

    @property
    def by_class(self) -> str:
        """The field that makes classes count, or an empty string."""
        return "per_class" if self.per_class else "class_cost" if self.class_cost > 0 else ""

    def check(self, conditions: ConditionSpec) -> None:
        """Raise ValueError when classes count and the data has none."""
        if self.by_class and conditions.num_classes is None:
            raise UsageError(f"coupling.{self.by_class} needs labels, and this data has none: leave it out")


def transport_cost(x0: Tensor, x1: Tensor, label: Tensor | None = None, class_cost: float = 0.0) -> Tensor:
    """Return the cost [n, n] of giving data row i the noise of row j: ``-2 <x1_i, x0_j> + class_cost [c_i != c_j]``.

    It is ``|x0_j - x1_i|^2`` without the two squares, which every plan pays alike: same plan, and quicker to solve.
    ``class_cost`` is in the same unit, a squared distance over all of a row's elements; above 0 it needs ``label`` [n].
    """
    require(class_cost >= 0, "class_cost", class_cost, "at least 0 (infinity: classes are never crossed)")
    if class_cost > 0 and label is None:
        raise UsageError(f"class_cost {class_cost:g} needs labels, and this data has none: set it to 0")
    dtype = torch.promote_types(x1.dtype, torch.float32)
    cost = -2 * x1.flatten(1).to(dtype) @ x0.flatten(1).to(dtype).T
    if class_cost == 0 or label is None:
        return cost
    return torch.where(label[:, None] == label, cost, cost + class_cost)


def plan(x0: Tensor, x1: Tensor, solve: Solver, label: Tensor | None = None, class_cost: float = 0.0) -> Tensor:
    """Return the noise row that each data row is given, int64 [n]: pair ``x1`` with ``x0[plan]``.

    The plan is a permutation of least total `transport_cost`. With an infinite ``class_cost`` each class is solved by
    itself, which also is quicker. Raises ValueError when ``solve`` returns anything else than a permutation.
    """
    require(len(x0) == len(x1), "x0", len(x0), f"as many rows as x1 has ({len(x1)})")
    if class_cost == math.inf and label is not None:
        noise = torch.empty(len(x1), dtype=torch.int64, device=x1.device)
        for c in torch.unique(label):
            rows = (label == c).nonzero().squeeze(1)
            noise[rows] = rows[solve(transport_cost(x0[rows], x1[rows]))]
    else:
        noise = solve(transport_cost(x0, x1, label, class_cost))
    if not torch.equal(noise.sort().values, torch.arange(len(x1), device=noise.device)):
        raise ValueError(f"the solver's assignment of {len(x1)} rows is no permutation")
    return noise
