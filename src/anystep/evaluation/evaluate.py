"""Scores of samples in several numbers of steps: one record each, with its protocol."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anystep.core.errors import UsageError
from anystep.core.fields import require
from anystep.core.random import Keys
from anystep.data.base import Dataset
from anystep.evaluation.features.base import extract
from anystep.evaluation.features.classifier import ClassifierSpace
from anystep.evaluation.metrics import build_spaces, choose_metrics
from anystep.evaluation.metrics.base import Kept, Metric
from anystep.evaluation.protocol import describe_evaluation, describe_guidance, describe_schedule, trained_guidance
from anystep.evaluation.reference import Reference, conditioned_like, empty_sides, read_reference
from anystep.model.generator import Generator, Plan


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
    classifier: str | Path | None = None,
    rows: int = 5000,
    batch: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Score ``num`` samples at each of ``steps`` against ``reference``; returns one JSON-ready record each.

    A record holds method, run, steps, guidance (the scale W in effect), network_calls (forward passes per sample), the
    scores, seconds (sampling only), notes and the protocol. A distance has its floor in `<name>_floor`
    and that one's deviation in `<name>_floor_deviation`. With several scales as ``guidance``, all steps of the first
    come before those of the next.

    ``metrics``: names of `METRICS`, `METRIC@SPACE` for another feature space, or instances of `Metric`; None: the usual
    ones for images or vectors. The Frechet distance uses all samples and the whole reference, distances between points
    at most ``rows`` of each, the reference's at random. Accuracy is that of a classifier fitted to ``heldout``.
    ``classifier``: the file of the one whose features `METRIC@classifier` compares (`anystep data classifier`). Class
    labels take turns; features are those of ``heldout``, without it of the reference, in the order of a reference.
    ``progress(done, total)`` counts forward passes of single samples.

    A metric that cannot be computed is null and "notes" has the reason: samples not finite, accuracy without classes.
    Raises ValueError, before any sample is generated, for metrics that are unknown, not installed, or requested by name
    where they cannot be computed, too few samples, no steps or scale, a reference of another shape, a classifier of
    other data, and as `Generator.plan` does.
    """
    chosen = choose_metrics(metrics, generator.codec.looks)
    scales = guidance if isinstance(guidance, Sequence) else [guidance]
    if not steps or not scales:
        raise UsageError("steps and guidance must have at least one value each")
    plans = [(count, scale, generator.plan(count, guidance=scale, twice=twice)) for scale in scales for count in steps]
    generator.check_decodable()
    shape = _checked_shape(generator, reference, chosen, num, rows)
    if generator.conditions.features:
        generator = conditioned_like(generator, heldout or reference)
    lacking = {name: why for name, metric in chosen.items() if (why := _lacks(metric, generator, reference, heldout))}
    if metrics is not None and lacking:
        raise UsageError(" ".join(next(iter(lacking.items()))))
    possible = {name: metric for name, metric in chosen.items() if name not in lacking}
    keys = Keys(seed, generator.key_version)
    trained = None if classifier is None else ClassifierSpace(Path(classifier), reference)
    spaces = build_spaces(chosen, generator.codec, shape, generator.device, trained)
    real = read_reference(reference, generator.codec, possible, spaces, heldout=heldout, rows=rows, num=num, keys=keys)
    protocol = describe_evaluation(generator, reference, heldout, chosen, spaces, real.kept, num, seed)

    done, total, records = 0, num * sum(plan.network_calls for *_, plan in plans), []

    def report(calls: int) -> None:
        nonlocal done
        done += calls
        if progress is not None:
            progress(done, total)

    for count, scale, plan in plans:
        drawn = empty_sides(possible.values(), spaces, min(rows, num))
        bad, seconds = _sample(generator, plan, drawn, num, seed, batch, report)
        diverged = f"{bad} of {num} samples are not finite: the network has diverged" if bad else ""
        scores, notes = _scores(chosen, lacking, real, drawn, diverged)
        records.append(
            {
                "method": generator.objective.name,
                "run": generator.source,
                "steps": count,
                "guidance": float(trained_guidance(generator.objective) if scale is None else scale),
                "network_calls": plan.network_calls,
                **scores,
                "seconds": round(seconds, 4),
                "notes": [note for note in (generator.caution, plan.caution, *notes) if note],
                "protocol": protocol
                | {
                    "steps": count,
                    "schedule": describe_schedule(plan.schedule),
                    "guidance": describe_guidance(generator.objective, scale, plan.guidance),
                },
            }
        )
    return records


def _checked_shape(
    generator: Generator, reference: Dataset, metrics: Mapping[str, Metric], num: int, rows: int
) -> tuple[int, ...]:
    """Return the shape of a normalised example.

    Raises UsageError for a reference that does not fit the model, and for too few samples or examples.
    """
    name, metric = max(metrics.items(), key=lambda item: item[1].fewest)
    for what, count in (("num", num), ("rows", rows), (f"the size of reference {reference.name!r}", len(reference))):
        require(count >= metric.fewest, what, count, f"at least {metric.fewest} for {name}")
    codec, example = generator.codec, reference.read(np.arange(1))
    try:
        found = tuple(codec.encode(example, None).shape[1:])
    except ValueError as error:
        raise UsageError(f"reference {reference.name!r} does not fit the model: {error}") from error
    if found != tuple(generator.shape):
        raise UsageError(
            f"reference {reference.name!r} has examples of shape {found}, the model's are {tuple(generator.shape)}"
        )
    return tuple(codec.normalised(codec.view(example)).shape[1:])


def _lacks(metric: Metric, generator: Generator, reference: Dataset, heldout: Dataset | None) -> str:
    """Return what a metric needs that is missing, "" for nothing."""
    if "conditions" in metric.needs and generator.conditions.label is None:
        return "needs classes, and this model is unconditional"
    if "heldout" in metric.needs and heldout is None:
        return "needs held-out real data, and none was given"
    without = [data.name for data in (reference, heldout) if data is not None and data.labels is None]
    return f"needs classes, and {without[0]!r} has none" if "conditions" in metric.needs and without else ""


def _sample(
    generator: Generator,
    plan: Plan,
    drawn: Mapping[str, Kept],
    num: int,
    seed: int,
    batch: int,
    report: Callable[[int], None],
) -> tuple[int, float]:
    """Generate samples 0 ... num - 1 and add those that are finite to ``drawn``.

    Returns how many are not finite, and the seconds of sampling alone. ``report`` gets each batch's forward passes.
    """
    bad, seconds, spaces = 0, 0.0, {key: side.space for key, side in drawn.items()}
    for start in range(0, num, batch):
        index = range(start, min(start + batch, num))
        noise, condition = generator.noise(seed, index), generator.usual_condition(index)
        begin = time.perf_counter()
        x = generator.generate(steps=plan, noise=noise, condition=condition, seed=seed, index=index, batch=batch)
        seconds += time.perf_counter() - begin
        finite = torch.isfinite(x.flatten(1)).all(1)
        bad += int((~finite).sum())
        stored = {
            rounded: generator.codec.decode(x[finite], rounded=rounded)
            for rounded in {space.rounded for space in spaces.values()}
        }
        label = generator.conditions.class_label(condition)
        features = extract(spaces, stored, None if label is None else label[finite].numpy())
        for key, side in drawn.items():
            side.add(features[key], np.asarray(index)[finite.numpy()])
        report(len(index) * plan.network_calls)
    return bad, seconds


def _scores(
    chosen: Mapping[str, Metric], lacking: Mapping[str, str], real: Reference, drawn: Mapping[str, Kept], diverged: str
) -> tuple[dict[str, float | None], list[str]]:
    """Return the scores by their names in the record, None where there is none, and notes."""
    scores: dict[str, float | None] = {}
    notes = [diverged] if diverged else [f"{name} {why}" for name, why in lacking.items()]
    for name, metric in chosen.items():
        scores[name] = None
        if not diverged and name not in lacking:
            sides = real.kept[metric.space], drawn[metric.space]
            found = metric.score(*sides, real.prepared[name])
            scores |= {f"{name}_{suffix}" if suffix else name: value for suffix, value in found.items()}
            if caution := metric.caution(*sides):
                notes.append(f"{name}: {caution}")
        scores |= {f"{name}_{suffix}": value for suffix, value in real.floors.get(name, {}).items()}
    return scores, notes
