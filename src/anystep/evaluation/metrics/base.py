"""What a metric is, and what it gets of the samples and of the reference."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anystep.evaluation.metrics.moments import Moments

#: what a metric may need of both sides; "heldout": the same of held-out real examples, as ``real.heldout``
Need = Literal["moments", "rows", "conditions", "logits", "heldout"]


class Probabilities:
    """Class probabilities of all examples, from logits that come batch by batch: what an inception score needs."""

    def __init__(self) -> None:
        self.count = 0
        self.total: NDArray[np.float64] = np.zeros(())
        """Sum of the probabilities of each class, [K]."""
        self.entropy = 0.0
        """Sum of the entropies of each example's probabilities, in nats."""

    def update(self, logits: ArrayLike) -> None:
        """Add rows of logits [n, K], of finite numbers."""
        values = np.asarray(logits, dtype=np.float64)
        logs = values - np.logaddexp.reduce(values, axis=1, keepdims=True)
        self.total = self.total + np.exp(logs).sum(0)
        self.entropy -= float((np.exp(logs) * logs).sum())
        self.count += len(values)


@dataclass(frozen=True, eq=False)
class Kept:
    """One side in one feature space: the samples, the reference, or held-out examples.

    It holds what the metrics of the space need, the rest is empty.
    """

    moments: Moments = field(default_factory=Moments)
    """Mean and covariance of the features of all examples."""
    rows: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    """Features [n, F] of at most ``evaluate(rows=...)`` examples; of the reference a random part, shuffled."""
    conditions: NDArray[np.int64] | None = None
    """The class of each of these rows, int64 [n]; None without classes."""
    logits: Probabilities = field(default_factory=Probabilities)
    """Class probabilities of all examples."""
    heldout: "Kept | None" = None
    """Of the reference: held-out examples, where there are any."""
    _found: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return ``compute()``, computed at most once per key: for what several metrics share."""
        if key not in self._found:
            self._found[key] = compute()
        return self._found[key]


@dataclass(frozen=True)
class Metric(ABC):
    """A score of samples against real examples. Its fields are its parameters and go into the protocol."""

    title: ClassVar[str]
    """What people call it, in tables and figures."""
    better: ClassVar[Literal["lower", "higher"]]
    distance: ClassVar[bool] = False
    """Whether it is a distance between two sets. Such a score is never without its floor, `<name>_floor`: the
    distance of as many examples of the reference, drawn with replacement, from the reference."""
    usual: ClassVar[frozenset[str]] = frozenset()
    """The looks of data ("picture", "vector") that it is computed for, in space `data`, when none are requested."""
    needs: ClassVar[frozenset[Need]]
    brings: ClassVar[tuple[str, ...]] = ()
    """Metrics without which it misleads: they are computed too."""

    space: str = "data"
    """Key of `FEATURES`."""

    @property
    def fewest(self) -> int:
        """The fewest examples that either side must have."""
        return 2

    def record(self) -> dict[str, Any]:
        """Return its parameters for the protocol."""
        return asdict(self)

    def prepare(self, real: Kept) -> Any:
        """Return what depends on the reference alone and is computed once: a matrix root, a classifier."""
        return None

    @abstractmethod
    def score(self, real: Kept, drawn: Kept, prepared: Any) -> dict[str, float]:
        """Return the score as "", and others beside it by a suffix: "real" becomes `accuracy_real`."""

    def caution(self, real: Kept, drawn: Kept) -> str | None:
        """Return why this score may mislead, or None."""
        return None


def equal_numbers(real: Kept, drawn: Kept) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the rows of both sides, as many of one as of the other."""
    size = min(len(real.rows), len(drawn.rows))
    return real.rows[:size], drawn.rows[:size]
