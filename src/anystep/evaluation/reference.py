"""What samples are compared with: the reference, read once for all numbers of steps, and its floor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anystep.codecs import Codec
from anystep.core.errors import DataError, UsageError
from anystep.core.random import generator
from anystep.data import Dataset, Source
from anystep.evaluation.collect import Collector, Wanted
from anystep.evaluation.features.base import FeatureSpace, extract
from anystep.evaluation.metrics.base import Kept, Metric
from anystep.flow.condition import Condition
from anystep.model.generator import Generator

READ_ROWS = 1024


@dataclass(frozen=True)
class Reference:
    """A data set in each feature space, what each metric prepared of it, and the floors of distances by metric."""

    dataset: Dataset
    metrics: Mapping[str, Metric]
    wanted: Wanted
    kept: Mapping[str, Kept]
    prepared: Mapping[str, Any]
    floors: Mapping[str, float]
    facts: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """What the protocol has of the reference for each metric: rows, the held-out examples."""


def heldout(source: Source) -> Dataset | None:
    """Return the rows that were kept from training, if any were."""
    try:
        return source.open("heldout")
    except DataError:
        return None


def given_as_rows(generator: Generator, reference: Dataset, heldout: Dataset | None) -> Generator:
    """Return the generator with conditions of held-out rows (without these, of the reference) where there are features.

    They come in the order of a reference, again and again. Raises UsageError for data with other conditions.
    """
    if not generator.conditions.features:
        return generator
    data = heldout or reference
    if data.conditions.entries.keys() != generator.conditions.entries.keys():
        ours, theirs = (", ".join(spec.entries) or "nothing" for spec in (generator.conditions, data.conditions))
        raise UsageError(f"this model is conditioned on {ours}, and the rows of {data.name!r} have {theirs}")
    order = _shuffled(len(data))

    def usual(index: Sequence[int]) -> Condition:
        return data.condition(order[np.asarray(index, dtype=np.int64) % len(order)])

    return replace(generator, usual=usual)


def given_as_data(generator: Generator, source: Source) -> Generator:
    """Return `given_as_rows` of a source's data, which is opened only if it is needed."""
    if not generator.conditions.features:
        return generator
    return given_as_rows(generator, source.open("train"), heldout(source))


def describe_conditions(generator: Generator, num: int, reference: Dataset, heldout: Dataset | None) -> str:
    """Return what ``num`` samples are given, for the protocol."""
    if generator.usual is None:
        return "none" if generator.num_classes is None else "balanced"
    return f"conditions of {min(num, len(heldout or reference))} {'held-out' if heldout else 'training'} rows"


def read_reference(
    dataset: Dataset,
    codec: Codec,
    metrics: Mapping[str, Metric],
    spaces: Mapping[str, FeatureSpace],
    *,
    heldout: Dataset | None,
    rows: int,
    num: int,
    seed: int,
) -> Reference:
    """Read the reference once, and the held-out examples where a metric needs them.

    ``rows`` bounds the random part that is kept for distances between points. The floor of a distance, for ``num``
    samples: that many examples drawn from the reference with replacement, as a function of ``seed``, against the whole.
    Scores at or below it are equally good. It costs no second pass over the reference.
    """
    judging = [metric for metric in metrics.values() if "heldout" in metric.needs]
    distances = {name: metric for name, metric in metrics.items() if metric.distance}
    drawn = torch.randint(len(dataset), (num if distances else 0,), generator=generator(seed, 0, "floor")).numpy()
    wanted, nothing, floor = (Wanted.by(group, spaces, rows) for group in (metrics.values(), (), distances.values()))
    held: Mapping[str, Kept] = {}
    if heldout is not None and judging:
        held, _ = _read(heldout, codec, Wanted.by(judging, spaces, rows), nothing, drawn[:0], {})
    kept, again = _read(dataset, codec, wanted, floor, drawn, held)
    prepared = {name: metric.prepare(kept[metric.space]) for name, metric in metrics.items()}
    return Reference(
        dataset,
        metrics,
        wanted,
        kept,
        prepared,
        floors={
            name: metric.score(kept[metric.space], again[metric.space], prepared[name])[""]
            for name, metric in distances.items()
        },
        facts={name: _facts(metric, kept[metric.space], heldout, num) for name, metric in metrics.items()},
    )


def _read(
    dataset: Dataset,
    codec: Codec,
    wanted: Wanted,
    floor: Wanted,
    drawn: NDArray[np.int64],
    heldout: Mapping[str, Kept],
) -> tuple[dict[str, Kept], dict[str, Kept]]:
    """Return a data set, and the rows that were ``drawn`` of it, in each feature space; every row is read once."""
    order = _shuffled(len(dataset))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    whole, part = Collector(wanted, len(dataset)), Collector(floor, len(drawn))
    visited = np.arange(len(dataset))
    if not wanted.streamed:  # only rows that are kept
        drawn = drawn[: part.size]
        visited = np.unique(np.concatenate([order[: whole.size], drawn]))
    for start in range(0, len(visited), READ_ROWS):
        index = visited[start : start + READ_ROWS]
        stored, labels = codec.view(dataset.read(index)), None if dataset.labels is None else dataset.labels[index]
        features = extract(wanted.spaces, dict.fromkeys((True, False), stored))
        whole.add(features, place[index], labels)
        here = np.flatnonzero((drawn >= index[0]) & (drawn <= index[-1]))
        at = np.searchsorted(index, drawn[here])
        again = {key: features[key].pick(at) for key in part.wanted.spaces}
        part.add(again, here, None if labels is None else labels[at])
    return whole.kept(heldout), part.kept()


def _facts(metric: Metric, kept: Kept, heldout: Dataset | None, num: int) -> dict[str, Any]:
    """Return what a metric was computed from, for the protocol."""
    if "heldout" in metric.needs and heldout is not None and kept.heldout is not None:
        number = len(kept.heldout.rows) or len(heldout)
        return {"heldout": heldout.name, "heldout_hash": heldout.fingerprint, "heldout_num": number}
    return {"rows": min(num, len(kept.rows))} if "rows" in metric.needs else {}


def _shuffled(total: int) -> NDArray[np.int64]:
    """Return all indices below ``total`` in a random order that is always the same.

    Never ascending: data is often sorted by class, and whoever takes the first rows must find all classes there.
    """
    order: NDArray[np.int64] = torch.randperm(total, generator=generator(0, 0, "reference")).numpy()
    return order
