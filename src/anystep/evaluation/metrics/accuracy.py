"""Whether samples have the requested class, by a classifier of real examples."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from anystep.evaluation.metrics.base import Kept, Metric

SVM = "SVC(rbf, C=10, gamma=scale)"


@dataclass(frozen=True)
class Accuracy(Metric):
    """Fraction of samples that a classifier, fitted to held-out examples, finds in the requested class.

    Beside it, as "real", its accuracy on the reference. Class means score 1, so recall comes along.
    """

    title = "Class accuracy"
    better = "higher"
    usual = frozenset({"picture"})
    needs = frozenset({"rows", "conditions", "heldout"})
    brings = ("recall",)

    def record(self) -> dict[str, Any]:
        """Return its parameters with the classifier."""
        return super().record() | {"classifier": SVM}

    def prepare(self, real: Kept) -> "tuple[ClassJudge, float]":
        """Fit the classifier; returns it with its accuracy on the reference. Raises ValueError for one class."""
        judge = class_judge(*_labelled(real.heldout))
        return judge, judge.accuracy(*_labelled(real))

    def score(self, real: Kept, drawn: Kept, prepared: "tuple[ClassJudge, float]") -> dict[str, float]:
        """Return the accuracy on samples and, as "real", on the reference."""
        judge, on_real = prepared
        return {"": judge.accuracy(*_labelled(drawn)), "real": on_real}


def _labelled(kept: Kept | None) -> tuple[ArrayLike, ArrayLike]:
    """Return rows and classes, which `evaluate` gives to metrics that need them."""
    assert kept is not None and kept.conditions is not None
    return kept.rows, kept.conditions


@dataclass(frozen=True)
class ClassJudge:
    """A classifier of real examples, fitted by `class_judge`. ``name`` says what it is, for the protocol record."""

    model: Any
    name: str

    def accuracy(self, features: ArrayLike, labels: ArrayLike) -> float:
        """Return the share of rows [n, F] whose class is recognised as ``labels`` [n]. Raises ValueError when empty."""
        wanted = np.asarray(labels)
        rows = np.asarray(features, dtype=np.float64)
        if len(rows) == 0 or len(rows) != len(wanted):
            raise ValueError(f"accuracy needs one label a row and some rows, got {len(rows)} and {len(wanted)} labels")
        return float(np.mean(self.model.predict(rows) == wanted))


def class_judge(features: ArrayLike, labels: ArrayLike) -> ClassJudge:
    """Fit a support vector classifier (RBF kernel, C = 10, gamma "scale") to real rows [n, F] with ``labels`` [n].

    Fit it to held-out data, which the generator has not seen, and judge the training data too: that second number
    says how far the first can be trusted. Never enough alone: class means score 1.0.
    Deterministic. Raises ValueError for fewer than two classes.
    """
    from sklearn.svm import SVC

    known = np.asarray(labels)
    if len(np.unique(known)) < 2:
        raise ValueError(f"a classifier needs at least 2 classes, got {len(np.unique(known))}")
    model = SVC(C=10.0, gamma="scale").fit(np.asarray(features, dtype=np.float64), known)
    return ClassJudge(model, SVM)
