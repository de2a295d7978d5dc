"""Class accuracy: whether samples have the requested class, by a classifier of real examples."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anystep.evaluation.metrics.base import Kept, Metric


@dataclass(frozen=True)
class Accuracy(Metric):
    """Fraction of samples that a support vector classifier, fitted to held-out examples, finds in the requested class.

    "real" is its accuracy on the reference, which takes the place of a floor. Never enough alone: class means score 1,
    so recall is computed too.
    """

    title = "Class accuracy"
    better = "higher"
    usual = frozenset({"picture"})
    needs = frozenset({"rows", "conditions", "heldout"})
    brings = ("recall",)

    classifier: str = field(default="SVC(rbf, C=10, gamma=scale)", init=False)
    """For the protocol."""

    def prepare(self, real: Kept) -> tuple[Any, float]:
        """Return the classifier, and its accuracy on the reference. Raises ValueError for a single class."""
        from sklearn.svm import SVC

        assert real.heldout is not None  # what `needs` names is there
        classifier = SVC(C=10.0, gamma="scale").fit(real.heldout.rows, real.heldout.conditions)
        return classifier, _accuracy(classifier, real)

    def score(self, real: Kept, drawn: Kept, prepared: tuple[Any, float]) -> dict[str, float]:
        """Return the accuracy on samples and, as "real", on the reference."""
        classifier, on_real = prepared
        return {"": _accuracy(classifier, drawn), "real": on_real}


def _accuracy(classifier: Any, kept: Kept) -> float:
    return float(np.mean(classifier.predict(kept.rows) == kept.conditions))
