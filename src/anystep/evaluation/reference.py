"""What samples are compared with: the reference's features and moments, computed once for a whole sweep."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anystep.codecs import Codec
from anystep.core.errors import DataError
from anystep.core.random import generator
from anystep.data import Dataset, Source
from anystep.evaluation.features.pixels import Features
from anystep.evaluation.metrics.accuracy import ClassJudge, class_judge
from anystep.evaluation.metrics.frechet import Moments, matrix_root

READ_ROWS = 1024


@dataclass(frozen=True)
class Reference:
    """Moments over every row of a data set, and the feature rows [n, F] of a fixed random part of it, shuffled.

    ``judge`` recognises classes, or is None with ``judge_missing`` saying why; ``judge_real`` is its accuracy on the
    reference itself, ``judge_data`` says what it was fitted to.
    """

    dataset: Dataset
    features: Features
    moments: Moments
    rows: NDArray[np.float64]
    judge: ClassJudge | None = None
    judge_missing: str = ""
    judge_real: float | None = None
    judge_data: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def root(self) -> NDArray[np.float64]:
        """The square root [F, F] of the covariance, taken once for all budgets."""
        return matrix_root(self.moments.covariance)


def heldout(source: Source) -> Dataset | None:
    """Return the rows that were kept from training, if any were."""
    try:
        return source.open("heldout")
    except DataError:
        return None


def prepare(
    dataset: Dataset, codec: Codec, features: Features, *, rows: int, heldout: Dataset | None, judge: bool
) -> Reference:
    """Read the reference once, as ``codec`` shows it.

    ``rows`` bounds the part that is kept for distances between points. ``judge`` asks for a classifier
    fitted to ``heldout``. Raises ValueError for fewer than 2 examples.
    """
    if len(dataset) < 2:
        raise ValueError(f"reference {dataset.name!r} needs at least 2 examples, got {len(dataset)}")
    moments = Moments()
    for start in range(0, len(dataset), READ_ROWS):
        moments.update(_read(dataset, codec, features, np.arange(start, min(start + READ_ROWS, len(dataset)))))
    part = _read(dataset, codec, features, _some(len(dataset), rows))
    missing = _judge_missing(dataset, heldout) if judge else "accuracy was not asked for"
    if missing or heldout is None:
        return Reference(dataset, features, moments, part, judge_missing=missing)
    fitted = _labelled(heldout, codec, features, rows)
    model = class_judge(*fitted)
    return Reference(
        dataset,
        features,
        moments,
        part,
        model,
        judge_real=model.accuracy(*_labelled(dataset, codec, features, rows)),
        judge_data={
            "heldout": heldout.name,
            "heldout_hash": heldout.fingerprint,
            "heldout_num": len(fitted[0]),
        },
    )


def _judge_missing(dataset: Dataset, heldout: Dataset | None) -> str:
    """Return why no classifier can be made, or nothing."""
    if heldout is None:
        return "accuracy needs held-out real data, and none was given"
    for data, what in ((heldout, "held-out data"), (dataset, "reference")):
        if data.labels is None:
            return f"accuracy needs classes, and the {what} {data.name!r} has none"
    return ""


def _labelled(
    dataset: Dataset, codec: Codec, features: Features, rows: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    assert dataset.labels is not None
    index = _some(len(dataset), rows)
    return _read(dataset, codec, features, index), np.asarray(dataset.labels)[index]


def _read(dataset: Dataset, codec: Codec, features: Features, index: NDArray[np.int64]) -> NDArray[np.float64]:
    parts = [index[start : start + READ_ROWS] for start in range(0, len(index), READ_ROWS)]
    return np.concatenate([features(codec.view(dataset.read(part))) for part in parts])


def _some(total: int, rows: int) -> NDArray[np.int64]:
    """Return at most ``rows`` indices below ``total`` in a random order that is always the same.

    Never ascending: data is often sorted by class, and who takes the first rows must find all classes there.
    """
    order: NDArray[np.int64] = torch.randperm(total, generator=generator(0, 0, "reference")).numpy()
    return order[:rows]
