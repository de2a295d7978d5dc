"""Scores over numbers of sampling steps: one record each, with its protocol."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from anystep.codecs import Codec
from anystep.core.errors import UsageError
from anystep.data.base import Dataset
from anystep.evaluation.collect import Collector, Wanted
from anystep.evaluation.features import FEATURES
from anystep.evaluation.features.base import FeatureSpace, extract
from anystep.evaluation.metrics import choose_metrics
from anystep.evaluation.metrics.base import Kept, Metric
from anystep.evaluation.protocol import (
    EvaluationProtocol,
    describe_device,
    describe_guidance,
    describe_precision,
    describe_schedule,
    guidance_in_effect,
)
from anystep.evaluation.reference import Reference, describe_conditions, given_as_rows, read_reference
from anystep.model.generator import Generator, Plan, ProgressCallback


def evaluate(
    generator: Generator,
    reference: Dataset,
    *,
    steps: Sequence[int],
    num: int,
    seed: int = 0,
    guidance: float | Sequence[float] | None = None,
    twice: bool = False,
    metrics: Sequence[str | Metric] | None = None,
    heldout: Dataset | None = None,
    rows: int = 5000,
    batch: int = 256,
    progress: ProgressCallback | None = None,
) -> list[dict[str, Any]]:
    """Score ``num`` samples at each of ``steps`` against ``reference``; returns one JSON-ready record each.

    With several scales as ``guidance``, all steps of the first come before those of the next.

    A record holds method, run, steps, guidance (the scale W in effect), network_calls (forward passes per sample), the
    scores, seconds (sampling only), notes and the protocol. A distance has its floor beside it, `frechet_floor`.

    Class labels take turns; of a model with features, samples are given what held-out rows are (without ``heldout``,
    what rows of the reference are), in the order of a reference.

    ``metrics``: names of `METRICS`, `METRIC@SPACE` for another feature space, or instances of `Metric`; None: the usual
    ones for images or vectors. Moments take in all samples and the whole reference; distances between points take in
    at most ``rows`` of each, drawn at random from the reference. Accuracy is that of a classifier fitted to
    ``heldout``. ``progress(done, total)`` counts forward passes of single samples.

    A metric that cannot be computed is null and "notes" has the reason: samples not finite, accuracy without classes.
    Raises ValueError, before any sample is generated, for an unknown metric, one that is requested by name where it
    cannot be computed, features that are not installed, too few samples, no steps or scale, a reference of another
    shape, and what `Generator.plan` raises.
    """
    chosen = choose_metrics(metrics, generator.codec.looks)
    if not steps:
        raise UsageError("steps must name at least one number of steps, got none")
    scales = guidance if isinstance(guidance, Sequence) else [guidance]
    if not scales:
        raise UsageError("guidance must name at least one scale, got none")
    _check_numbers(chosen, num, rows, reference)
    plans = [(count, scale, generator.plan(count, guidance=scale, twice=twice)) for scale in scales for count in steps]
    generator.check_decodable()
    shape = _viewed_shape(generator, reference)
    generator = given_as_rows(generator, reference, heldout)
    lacking = {name: why for name, metric in chosen.items() if (why := _lacks(metric, generator, reference, heldout))}
    if metrics is not None and lacking:
        raise UsageError(" ".join(next(iter(lacking.items()))))
    spaces = build_spaces(chosen, generator.codec, shape, generator.device)
    possible = {name: metric for name, metric in chosen.items() if name not in lacking}
    real = read_reference(reference, generator.codec, possible, spaces, heldout=heldout, rows=rows, num=num, seed=seed)
    labels = describe_conditions(generator, num, reference, heldout)
    shared = _protocol(generator, real, chosen, spaces, num, seed, labels)

    total, before, records = num * sum(plan.network_calls for *_, plan in plans), 0, []
    for count, scale, plan in plans:

        def counted(done: int, _: int, before: int = before, calls: int = plan.network_calls) -> None:
            if progress is not None:
                progress(before + done * calls, total)

        drawn, bad, seconds = sample_batches(generator, plan, real.wanted, num, seed, batch, counted)
        diverged = f"{bad} of {num} samples are not finite: the network has diverged" if bad else ""
        scores, notes = _scores(chosen, lacking, real, drawn, diverged)
        protocol = replace(
            shared,
            steps=count,
            schedule=describe_schedule(plan.schedule),
            guidance=describe_guidance(generator.objective, scale, plan.guidance),
        )
        records.append(
            {
                "method": generator.objective.name,
                "run": generator.source,
                "steps": count,
                "guidance": guidance_in_effect(generator.objective, scale),
                "network_calls": plan.network_calls,
                **scores,
                "seconds": round(seconds, 4),
                "notes": [note for note in (generator.caution, plan.caution, *notes) if note],
                "protocol": protocol.as_dict(),
            }
        )
        before += num * plan.network_calls
    return records


def build_spaces(
    metrics: Mapping[str, Metric], codec: Codec, shape: tuple[int, ...], device: torch.device
) -> dict[str, FeatureSpace]:
    """Return the feature spaces of these metrics, by key, for examples of a shape.

    Raises UsageError for a space that is unknown or not installed.
    """
    spaces: dict[str, FeatureSpace] = {}
    for name, metric in metrics.items():
        if metric.space not in FEATURES:
            raise UsageError(f"{name}: features must be among {', '.join(FEATURES)}, got {metric.space!r}")
        if metric.space not in spaces:
            try:
                spaces[metric.space] = FEATURES[metric.space](codec, shape, device)
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from error
    return spaces


def sample_batches(
    generator: Generator, plan: Plan, wanted: Wanted, num: int, seed: int, batch: int, progress: ProgressCallback
) -> tuple[dict[str, Kept], int, float]:
    """Generate samples 0 ... num - 1 and keep what is wanted of those that are finite.

    Returns that by feature space, how many are not finite, and the seconds of sampling alone.
    """
    collector, bad, seconds = Collector(wanted, num), 0, 0.0
    forms = {space.rounded for space in wanted.spaces.values()}
    for start in range(0, num, batch):
        index = range(start, min(start + batch, num))
        noise, condition = generator.noise(seed, index), generator.usual_condition(index)
        begun = time.perf_counter()
        x = generator.draw(noise, plan, condition=condition, seed=seed, index=index, batch=batch)
        seconds += time.perf_counter() - begun
        finite = torch.isfinite(x.flatten(1)).all(1)
        bad += int((~finite).sum())
        features = extract(
            wanted.spaces, {rounded: generator.codec.decode(x[finite], rounded=rounded) for rounded in forms}
        )
        place = np.asarray(index)[finite.numpy()]
        label = generator.conditions.class_label(condition)
        collector.add(features, place, None if label is None else label[finite].numpy())
        progress(index.stop, num)
    return collector.kept(), bad, seconds


def _viewed_shape(generator: Generator, reference: Dataset) -> tuple[int, ...]:
    """Return the shape of an example in normalised units. Raises UsageError for a reference that does not fit."""
    codec, row = generator.codec, reference.read(np.arange(1))
    try:
        found = tuple(codec.encode(row, None).shape[1:])
    except ValueError as error:
        raise UsageError(f"reference {reference.name!r} does not fit the model: {error}") from error
    if found != tuple(generator.shape):
        raise UsageError(
            f"reference {reference.name!r} has examples of shape {found}, the model makes {tuple(generator.shape)}"
        )
    return tuple(codec.normalised(codec.view(row)).shape[1:])


def _check_numbers(metrics: Mapping[str, Metric], num: int, rows: int, reference: Dataset) -> None:
    """Raise UsageError for fewer samples or examples than a metric must have."""
    name, metric = max(metrics.items(), key=lambda item: item[1].fewest)
    for what, count in (("num", num), ("rows", rows), (f"the size of reference {reference.name!r}", len(reference))):
        if count < metric.fewest:
            raise UsageError(f"{what} must be at least {metric.fewest} for {name}, got {count}")


def _lacks(metric: Metric, generator: Generator, reference: Dataset, heldout: Dataset | None) -> str:
    """Return what a metric needs and cannot have here, or nothing."""
    if "conditions" in metric.needs and generator.num_classes is None:
        return "needs classes, and this model is unconditional"
    if "heldout" in metric.needs and heldout is None:
        return "needs held-out real data, and none was given"
    for data, what in ((heldout, "held-out data"), (reference, "reference")):
        if "conditions" in metric.needs and data is not None and data.labels is None:
            return f"needs classes, and the {what} {data.name!r} has none"
    return ""


def _scores(
    chosen: Mapping[str, Metric],
    lacking: Mapping[str, str],
    real: Reference,
    drawn: Mapping[str, Kept],
    diverged: str,
) -> tuple[dict[str, float | None], list[str]]:
    """Return the scores by their names in the record, null where there is none, and notes."""
    scores: dict[str, float | None] = {}
    notes = [diverged] if diverged else []
    for name, metric in chosen.items():
        scores[name] = None
        if not diverged and name in lacking:
            notes.append(f"{name} {lacking[name]}")
        elif not diverged:
            sides = real.kept[metric.space], drawn[metric.space]
            found = metric.score(*sides, real.prepared[name])
            scores |= {f"{name}_{part}" if part else name: value for part, value in found.items()}
            if caution := metric.caution(*sides):
                notes.append(f"{name}: {caution}")
        if name in real.floors:
            scores[f"{name}_floor"] = real.floors[name]
    return scores, notes


def _protocol(
    generator: Generator,
    real: Reference,
    chosen: Mapping[str, Metric],
    spaces: Mapping[str, FeatureSpace],
    num: int,
    seed: int,
    labels: str,
) -> EvaluationProtocol:
    """Return the record of the call, without what differs between its plans."""
    picture, used = generator.codec.looks == "picture", list(spaces.values())
    return EvaluationProtocol(
        num=num,
        reference=real.dataset.name,
        reference_hash=real.dataset.fingerprint,
        reference_num=len(real.dataset),
        features=_joined(space.name for space in used),
        resize=_joined(space.resize for space in used),
        quantised=_joined("uint8" if picture and space.rounded else "none" for space in used),
        steps=0,
        schedule="",
        guidance=1.0,
        labels=labels,
        ema=generator.ema,
        seed=seed,
        device=describe_device(generator.device),
        precision=describe_precision(generator.network),
        metrics={
            name: metric.record()
            | ({"features_version": spaces[metric.space].version} if spaces[metric.space].version else {})
            | real.facts.get(name, {})
            for name, metric in chosen.items()
        },
    )


def _joined(words: Iterable[str]) -> str:
    """Return the words, each once."""
    return ", ".join(dict.fromkeys(words))
