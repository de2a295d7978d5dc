"""What a metric is, and what it gets of samples and of real examples."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from anystep.evaluation.features.base import Array, Features, FeatureSpace

#: what a metric may need of both sides; "heldout": the same of held-out real examples, as ``real.heldout``
Need = Literal["moments", "rows", "conditions", "logits", "heldout"]


class Moments:
    """Mean [F] and covariance of features in float64, computed batch by batch.

    The pairwise update of Chan, Golub and LeVeque (1979) stays precise however far the mean is from zero.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Array = np.zeros(())
        self._scatter: Array = np.zeros(())

    @property
    def covariance(self) -> Array:
        """The unbiased covariance [F, F] (divided by n - 1), of at least 2 examples."""
        return self._scatter / (self.count - 1)

    def update(self, features: Array) -> None:
        """Add features [n, F]."""
        if len(features) == 0:
            return
        total, mean = self.count + len(features), features.mean(0)
        centred, shift = features - mean, mean - self.mean
        scatter = centred.T @ centred
        scatter += self._scatter
        self._scatter = scatter  # in place: with many features these matrices are large
        between = np.multiply.outer(shift, shift)
        between *= self.count * len(features) / total
        scatter += between
        self.mean = self.mean + shift * (len(features) / total)
        self.count = total


class Probabilities:
    """Sums over class probabilities, computed from logits batch by batch: what an inception score needs."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Array = np.zeros(())
        """Sum of the probabilities of each class, [K]."""
        self.entropy = 0.0
        """Sum of the entropies of each example's probabilities, in nats."""

    def update(self, logits: Array) -> None:
        """Add logits [n, K], of finite numbers."""
        logs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        self.total = self.total + np.exp(logs).sum(0)
        self.entropy -= float((np.exp(logs) * logs).sum())
        self.count += len(logits)


@dataclass(eq=False)
class Kept:
    """What metrics need of samples, of the reference or of held-out examples in one feature space.

    It is collected batch by batch, in any order. What no metric needs stays empty.
    """

    space: FeatureSpace
    needs: frozenset[Need]
    size: int
    """How many examples `rows` and `conditions` hold."""
    moments: Moments = field(default_factory=Moments)
    """Mean and covariance of the features of all examples."""
    rows: Array = field(default_factory=lambda: np.zeros((0, 0)))
    """Features [size, F] of the first examples, at most ``evaluate(rows=...)``; the reference's are in random order."""
    conditions: NDArray[np.int64] | None = None
    """The class of each of these examples, [size]; None without classes."""
    logits: Probabilities = field(default_factory=Probabilities)
    """Class probabilities of all examples."""
    heldout: "Kept | None" = None
    """Of the reference: the held-out examples, where there are any."""

    def add(self, batch: Features, number: NDArray[np.int64]) -> None:
        """Add a batch of examples; ``number`` [n] counts them from 0. Raises ValueError for missing logits."""
        first = number < self.size
        if "moments" in self.needs:
            self.moments.update(batch.values)
        if "logits" in self.needs:
            if batch.logits is None:
                raise ValueError(f"features {self.space.name!r} have no logits")
            self.logits.update(batch.logits)
        if "rows" in self.needs:
            if len(self.rows) == 0:
                self.rows = np.zeros((self.size, batch.values.shape[1]))
            self.rows[number[first]] = batch.values[first]
        if "conditions" in self.needs and batch.classes is not None:
            if self.conditions is None:
                self.conditions = np.zeros(self.size, np.int64)
            self.conditions[number[first]] = batch.classes[first]


@dataclass(frozen=True)
class Metric(ABC):
    """A score of samples against real examples. Its fields are its parameters and go into the protocol."""

    title: ClassVar[str]
    """Its name in tables and figures."""
    better: ClassVar[Literal["lower", "higher"]]
    distance: ClassVar[bool] = False
    """Whether it is a distance between two sets. Every score record then has its floor, `<name>_floor`: the distance
    of as many examples of the reference, drawn with replacement, from the reference; and `<name>_floor_deviation`, the
    standard deviation over several such draws."""
    usual: ClassVar[frozenset[str]] = frozenset()
    """The looks of data ("picture", "vector") that it is computed for, in space `data`, when no metrics are named."""
    needs: ClassVar[frozenset[Need]]
    brings: ClassVar[tuple[str, ...]] = ()
    """Metrics without which it misleads: they are computed too."""

    space: str = "data"
    """Key of `FEATURES`."""

    @property
    def fewest(self) -> int:
        """The fewest samples and real examples that it can be computed for."""
        return 2

    def prepare(self, real: Kept) -> Any:
        """Return what depends on the reference alone and is computed once: a matrix root, a classifier."""
        return None

    @abstractmethod
    def score(self, real: Kept, drawn: Kept, prepared: Any) -> dict[str, float]:
        """Return the score as "", and further ones by their suffix: "real" becomes `accuracy_real`."""

    def caution(self, real: Kept, drawn: Kept) -> str | None:
        """Return why this score may mislead, or None."""
        return None
