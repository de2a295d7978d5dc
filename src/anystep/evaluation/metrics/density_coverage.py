"""Density and coverage (Naeem et al. 2020): precision and recall that single odd examples change little."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from anystep.evaluation.metrics.base import Kept
from anystep.evaluation.metrics.distances import distances, equal_numbers
from anystep.evaluation.metrics.precision_recall import Precision, balls


@dataclass(frozen=True)
class Density(Precision):
    """How many balls around real examples a sample lies in, on average, over the k that it would by chance (eq. 4).

    It can be above 1: samples crowd where real examples do.
    """

    title = "Density"
    usual = frozenset()

    k: Annotated[int, Ge(1)] = 5
    """Which nearest neighbour the balls reach to."""

    def score(self, real: Kept, drawn: Kept, prepared: None) -> dict[str, float]:
        """Return the density."""
        examples, samples = equal_numbers(real, drawn)
        reach = balls(examples, self.k, samples)
        inside = sum(int((slab <= reach).sum()) for _, slab in distances(samples, examples))
        return {"": inside / (self.k * len(samples))}


@dataclass(frozen=True)
class Coverage(Density):
    """Fraction of real examples with a sample in their ball (eq. 5): whether samples cover the data."""

    title = "Coverage"

    def score(self, real: Kept, drawn: Kept, prepared: None) -> dict[str, float]:
        """Return the coverage."""
        examples, samples = equal_numbers(real, drawn)
        reach = balls(examples, self.k, samples)
        found = sum(int((slab <= reach[rows, None]).any(1).sum()) for rows, slab in distances(examples, samples))
        return {"": found / len(examples)}
