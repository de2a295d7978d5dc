"""What samples are compared with: the reference, read once for all numbers of steps, and its floors."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anystep.codecs import Codec
from anystep.core.errors import DataError, UsageError
from anystep.core.random import Keys, torch_generator
from anystep.data import Dataset, Source
from anystep.evaluation.features.base import FeatureSpace, extract
from anystep.evaluation.metrics.base import Kept, Metric, Need
from anystep.flow.condition import Condition
from anystep.model.generator import Generator

READ_ROWS = 1024
#: bootstraps of the reference that a floor's deviation is computed over
FLOOR_DRAWS = 4


@dataclass(frozen=True)
class Reference:
    """A data set in each feature space, and what each metric prepared from it."""

    kept: Mapping[str, Kept]
    prepared: Mapping[str, Any]
    floors: Mapping[str, Mapping[str, float]]
    """By distance: "floor" and "floor_deviation"."""


def open_heldout(source: Source) -> Dataset | None:
    """Return the examples that were held out from training, if there are any."""
    try:
        return source.open("heldout")
    except DataError:
        return None


def conditioned_like(generator: Generator, data: Dataset) -> Generator:
    """Return the model with the conditions of ``data`` for its samples, in the order of a reference, over and over.

    Raises UsageError for data with other conditions.
    """
    if data.conditions.entries.keys() != generator.conditions.entries.keys():
        ours, theirs = (", ".join(spec.entries) or "nothing" for spec in (generator.conditions, data.conditions))
        raise UsageError(f"this model is conditioned on {ours}, and the examples of {data.name!r} have {theirs}")
    order = reference_order(len(data))

    def usual(index: Sequence[int]) -> Condition:
        return data.condition(order[np.asarray(index, dtype=np.int64) % len(order)])

    return replace(generator, usual=usual)


def conditioned_like_source(generator: Generator, source: Source) -> Generator:
    """Return a model of features `conditioned_like` the held-out, else the training examples; others unchanged."""
    if not generator.conditions.features:
        return generator
    return conditioned_like(generator, open_heldout(source) or source.open("train"))


def reference_order(total: int) -> NDArray[np.int64]:
    """Return all indices below ``total`` in a random order that is always the same.

    Data is often sorted by class: the first examples in this order have all classes.
    """
    order: NDArray[np.int64] = torch.randperm(total, generator=torch_generator(0, 0, "reference")).numpy()
    return order


def empty_sides(metrics: Iterable[Metric], spaces: Mapping[str, FeatureSpace], size: int) -> dict[str, Kept]:
    """Return an empty `Kept` for each feature space of these metrics, for what they need of at most ``size`` rows."""
    needs: dict[str, frozenset[Need]] = {}
    for metric in metrics:
        needs[metric.space] = needs.get(metric.space, frozenset()) | metric.needs
    return {key: Kept(spaces[key], needed, size) for key, needed in needs.items()}


def read_reference(
    dataset: Dataset,
    codec: Codec,
    metrics: Mapping[str, Metric],
    spaces: Mapping[str, FeatureSpace],
    *,
    heldout: Dataset | None,
    rows: int,
    num: int,
    keys: Keys,
) -> Reference:
    """Read the reference once, and the held-out examples where a metric needs them.

    ``rows`` limits the random part that distances between points are computed for. The floor of a distance, for
    ``num`` samples, is the distance of that many examples, drawn from the reference with replacement by ``keys``, from
    the whole reference. Scores at or below it are equally good. Its deviation is the standard deviation over
    `FLOOR_DRAWS` such draws, of which the floor is the first.
    """
    distances = {name: metric for name, metric in metrics.items() if metric.distance}
    draws = [
        (
            (keys.words(draw, "floor", num) % len(dataset)).astype(np.int64),
            empty_sides(distances.values(), spaces, min(rows, num)),
        )
        for draw in range(FLOOR_DRAWS if distances else 0)
    ]
    kept = empty_sides(metrics.values(), spaces, min(rows, len(dataset)))
    judging = [metric for metric in metrics.values() if "heldout" in metric.needs]
    if heldout is not None and judging:
        held = empty_sides(judging, spaces, min(rows, len(heldout)))
        _read(heldout, codec, rows, held)
        for key, side in held.items():
            kept[key].heldout = side
    _read(dataset, codec, rows, kept, draws)
    prepared = {name: metric.prepare(kept[metric.space]) for name, metric in metrics.items()}
    floors = {}
    for name, metric in distances.items():
        again = [metric.score(kept[metric.space], sides[metric.space], prepared[name])[""] for _, sides in draws]
        floors[name] = {"floor": again[0], "floor_deviation": stdev(again)}
    return Reference(kept, prepared, floors)


def _read(
    dataset: Dataset,
    codec: Codec,
    rows: int,
    kept: Mapping[str, Kept],
    draws: Sequence[tuple[NDArray[np.int64], Mapping[str, Kept]]] = (),
) -> None:
    """Add a data set to ``kept``, and the examples that each of ``draws`` has drawn to its sides, in one pass."""
    order = reference_order(len(dataset))
    number, visited = np.argsort(order), np.arange(len(dataset))
    if not any(side.needs & {"moments", "logits"} for side in kept.values()):  # the first rows are enough
        draws = [(drawn[:rows], sides) for drawn, sides in draws]
        visited = np.unique(np.concatenate([order[:rows], *(drawn for drawn, _ in draws)]))
    for start in range(0, len(visited), READ_ROWS):
        index = visited[start : start + READ_ROWS]
        stored, classes = codec.view(dataset.read(index)), None if dataset.labels is None else dataset.labels[index]
        features = extract({key: side.space for key, side in kept.items()}, {True: stored, False: stored}, classes)
        for key, side in kept.items():
            side.add(features[key], number[index])
        for drawn, sides in draws:
            here = np.flatnonzero((drawn >= index[0]) & (drawn <= index[-1]))
            for key, side in sides.items():
                side.add(features[key].pick(np.searchsorted(index, drawn[here])), here)
