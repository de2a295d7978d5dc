"""What the metrics need of one side, the samples or a data set, gathered batch by batch in one pass."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anystep.evaluation.features.base import Features, FeatureSpace
from anystep.evaluation.metrics.base import Kept, Metric, Need, Probabilities
from anystep.evaluation.metrics.moments import Moments


@dataclass(frozen=True)
class Wanted:
    """The feature spaces, by key, what is needed in each, and how many rows are kept at most."""

    spaces: Mapping[str, FeatureSpace]
    needs: Mapping[str, frozenset[Need]]
    rows: int

    @classmethod
    def by(cls, metrics: Iterable[Metric], spaces: Mapping[str, FeatureSpace], rows: int) -> "Wanted":
        """Return what these metrics want."""
        needs: dict[str, frozenset[Need]] = {}
        for metric in metrics:
            needs[metric.space] = needs.get(metric.space, frozenset()) | metric.needs
        return cls({key: spaces[key] for key in needs}, needs, rows)

    @property
    def streamed(self) -> bool:
        """Whether every example counts, and not only the rows that are kept."""
        return any(need & {"moments", "logits"} for need in self.needs.values())


class Collector:
    """Takes one side's examples, ``total`` of them, and keeps what is wanted.

    The parts of several processes could be added up here, or kept in a file: none of it depends on the batches.
    """

    def __init__(self, wanted: Wanted, total: int) -> None:
        self.wanted, self.size = wanted, min(wanted.rows, total)
        self._moments = {key: Moments() for key in wanted.spaces}
        self._logits = {key: Probabilities() for key in wanted.spaces}
        self._rows: dict[str, NDArray[np.float64]] = {}
        self._conditions: NDArray[np.int64] | None = None

    def add(
        self, features: Mapping[str, Features], place: NDArray[np.int64], conditions: NDArray[np.int64] | None
    ) -> None:
        """Add a batch. ``place`` [n]: each example's number on this side; those of the first numbers are kept."""
        first = place < self.size
        for key, needs in self.wanted.needs.items():
            values, logits = features[key]
            if "moments" in needs:
                self._moments[key].update(values)
            if "logits" in needs:
                if logits is None:
                    raise ValueError(f"features {self.wanted.spaces[key].name!r} have no logits")
                self._logits[key].update(logits)
            if "rows" in needs:
                rows = self._rows.setdefault(key, np.zeros((self.size, values.shape[1])))
                rows[place[first]] = values[first]
        if conditions is not None:
            if self._conditions is None:
                self._conditions = np.zeros(self.size, np.int64)
            self._conditions[place[first]] = conditions[first]

    def kept(self, heldout: Mapping[str, Kept] | None = None) -> dict[str, Kept]:
        """Return what was kept in each space, with that of held-out examples."""
        held, none = heldout or {}, np.zeros((0, 0))
        return {
            key: Kept(self._moments[key], self._rows.get(key, none), self._conditions, self._logits[key], held.get(key))
            for key in self.wanted.spaces
        }
