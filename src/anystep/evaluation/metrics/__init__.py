"""Scores of samples against real examples: one metric per file, and one line in `METRICS`.

`METRIC@SPACE` is a metric of the registry in another feature space.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch

from anystep.codecs import Codec
from anystep.core.errors import UsageError, did_you_mean
from anystep.evaluation.features import FEATURES
from anystep.evaluation.features.base import Build, FeatureSpace
from anystep.evaluation.features.classifier import ClassifierSpace
from anystep.evaluation.metrics.accuracy import Accuracy
from anystep.evaluation.metrics.base import Metric
from anystep.evaluation.metrics.density_coverage import Coverage, Density
from anystep.evaluation.metrics.energy import Energy
from anystep.evaluation.metrics.frechet import Fid, Frechet
from anystep.evaluation.metrics.kernel import Kernel
from anystep.evaluation.metrics.precision_recall import Precision, Recall

METRICS: dict[str, Metric] = {
    "frechet": Frechet("data"),
    "precision": Precision("data"),
    "recall": Recall("data"),
    "density": Density("data"),
    "coverage": Coverage("data"),
    "energy": Energy("data"),
    "accuracy": Accuracy("data"),
    "fid": Fid("inception"),
    "fid_paper": Fid("inception_paper"),
    "sfid": Fid("inception_spatial"),
    "kid": Kernel("inception"),
}


def find_metric(name: str) -> Metric:
    """Return the metric of a name, `METRIC` or `METRIC@SPACE`. Raises UsageError that offers the nearest name."""
    base, at, space = name.partition("@")
    if base not in METRICS:
        raise UsageError(f"metrics must be {_among(METRICS, base)}")
    return replace(METRICS[base], space=space) if at else METRICS[base]


def choose_metrics(requested: Sequence[str | Metric] | None, looks: str = "picture") -> dict[str, Metric]:
    """Return metrics by name, those of the registry first and in its order, with the metrics that they bring along.

    ``requested`` None: the usual ones of data that ``looks`` like "picture" or "vector". A metric that is not in the
    registry has its class's name. Raises UsageError for an unknown name, no name, or two metrics of one name.
    """
    if requested is None:  # none that needs a feature network
        requested = [name for name, metric in METRICS.items() if looks in metric.usual and metric.space == "data"]
    elif not requested:
        raise UsageError(f"metrics must name at least one of {', '.join(METRICS)}, got none")
    chosen: dict[str, Metric] = {}
    for item in requested:
        name, metric = (item, find_metric(item)) if isinstance(item, str) else (metric_name(item), item)
        if chosen.setdefault(name, metric) != metric:
            raise UsageError(f"two metrics are called {name!r}: evaluate them one after the other")
        for other in metric.brings:
            brought = replace(METRICS[other], space=metric.space)
            chosen.setdefault(metric_name(brought), brought)
    return {name: chosen[name] for name in [*METRICS, *chosen] if name in chosen}


def metric_name(metric: Metric) -> str:
    """Return an instance's name in the registry, else that of its class, with its space.

    Raises UsageError for anything but an instance of `Metric`.
    """
    if not isinstance(metric, Metric):
        hint = f"{metric.__name__}()" if isinstance(metric, type) else "one of its subclasses"
        raise UsageError(f"metrics must be names or instances of Metric, got {metric!r}: pass {hint}")
    for name, registered in METRICS.items():
        if registered == metric:
            return name
    base = re.sub(r"(?<!^)(?=[A-Z])", "_", type(metric).__name__).lower()
    return base if metric.space == "data" else f"{base}@{metric.space}"


def build_spaces(
    metrics: Mapping[str, Metric],
    codec: Codec,
    shape: tuple[int, ...],
    device: torch.device,
    classifier: ClassifierSpace | None = None,
) -> dict[str, FeatureSpace]:
    """Return the feature spaces of these metrics, by key, for examples of a shape.

    ``classifier`` builds the space of that name. Raises UsageError for a space that is unknown or not installed, and
    for a classifier that no metric uses, DataError for one that cannot be read.
    """
    builds: Mapping[str, Build] = FEATURES if classifier is None else {**FEATURES, "classifier": classifier}
    if classifier is not None and all(metric.space != "classifier" for metric in metrics.values()):
        raise UsageError(f"{classifier.path} is for metrics of its features: request one, e.g. frechet@classifier")
    spaces: dict[str, FeatureSpace] = {}
    for name, metric in metrics.items():
        if metric.space not in builds:
            raise UsageError(f"{name}: features must be {_among(builds, metric.space)}")
        if metric.space not in spaces:
            try:
                spaces[metric.space] = builds[metric.space](codec, shape, device)
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from error
    return spaces


def _among(names: Iterable[str], name: str) -> str:
    return f"among {', '.join(names)}, got {name!r}{did_you_mean(name, names)}"
