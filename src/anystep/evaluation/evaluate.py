"""Scores over sampling budgets: one row a budget, each with its protocol."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anystep.codecs import Codec
from anystep.data.base import Dataset
from anystep.evaluation.features.pixels import Features, pixels
from anystep.evaluation.metrics.energy import energy_distance
from anystep.evaluation.metrics.frechet import Moments, frechet_distance
from anystep.evaluation.metrics.precision_recall import precision_recall
from anystep.evaluation.protocol import (
    EvaluationProtocol,
    describe_device,
    describe_guidance,
    describe_precision,
    describe_schedule,
    guidance_in_effect,
)
from anystep.evaluation.reference import Reference, prepare
from anystep.model.generator import Generator, Plan, Progress

METRICS = ("frechet", "precision", "recall", "energy", "accuracy")
IMAGE_METRICS = ("frechet", "precision", "recall", "accuracy")
VECTOR_METRICS = ("frechet", "precision", "recall", "energy")


def evaluate(
    generator: Generator,
    reference: Dataset,
    *,
    steps: Sequence[int],
    num: int,
    seed: int = 0,
    guidance: float | Sequence[float] | None = None,
    twice: bool = False,
    metrics: Sequence[str] | None = None,
    heldout: Dataset | None = None,
    features: Features | None = None,
    k: int = 3,
    rows: int = 5000,
    batch: int = 256,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Score ``num`` samples at each of ``steps`` against ``reference``; returns one JSON-ready dict a budget.

    With several scales as ``guidance``, all budgets of the first come before those of the next.

    A row holds method, run, steps, guidance (the scale W in effect), network_calls (forward passes a sample), one value
    a metric, seconds (sampling only), notes and the protocol.

    Metrics: "frechet" on all samples and the whole reference; "precision" and "recall" (neighbour ``k``) and "energy"
    on at most ``rows`` of each, drawn at random from the reference; "accuracy" of a classifier fitted to ``heldout``,
    with "accuracy_real", its accuracy on the reference, beside it. None asks for the usual ones of images or vectors;
    accuracy alone misleads (class means score 1.0) and so brings recall along. ``features`` None means
    `features.pixels`. ``progress(done, total)`` counts forward passes of single samples.

    A metric that cannot be computed is null and "notes" says why: samples not finite, accuracy without classes.
    Raises ValueError, before anything is drawn, for an unknown metric, accuracy that was asked for by name where it
    cannot be had, k or fewer samples, no budget or scale, a reference of another shape, and what `Generator.plan`
    raises.
    """
    wanted = _metrics(metrics, generator.codec)
    if not steps:
        raise ValueError("steps must name at least one budget, got none")
    fewest = max(2, k + 1)
    for name, count in (("num", num), ("rows", rows), (f"the size of reference {reference.name!r}", len(reference))):
        if count < fewest:
            raise ValueError(f"{name} must be at least {fewest} (more than k = {k}), got {count}")
    scales = guidance if isinstance(guidance, Sequence) else [guidance]
    if not scales:
        raise ValueError("guidance must name at least one scale, got none")
    plans = [
        (budget, scale, generator.plan(budget, guidance=scale, twice=twice)) for scale in scales for budget in steps
    ]
    _check_shape(generator, reference)
    chosen = features or pixels(generator.codec, _viewed_shape(generator, reference))
    real = prepare(reference, generator.codec, chosen, rows=rows, heldout=heldout, judge="accuracy" in wanted)
    if generator.num_classes is None:
        real = replace(real, judge=None, judge_missing="accuracy needs classes, and this model is unconditional")
    if metrics is not None and "accuracy" in wanted and real.judge is None:
        raise ValueError(real.judge_missing)

    sweep = _Sweep(generator, real, tuple(wanted), num, seed, k, rows, batch)
    total, before, results = num * sum(plan.network_calls for *_, plan in plans), 0, []
    for budget, scale, plan in plans:
        results.append(sweep.row(budget, scale, plan, _shifted(progress, before, plan.network_calls, total)))
        before += num * plan.network_calls
    return results


def usual_metrics(codec: Codec) -> tuple[str, ...]:
    """Return the metrics to compute for examples that look as the codec's do."""
    return IMAGE_METRICS if codec.looks == "picture" else VECTOR_METRICS


def _metrics(asked: Sequence[str] | None, codec: Codec) -> list[str]:
    """Return the metrics in their fixed order, recall with accuracy."""
    if asked is None:
        return list(usual_metrics(codec))
    if not asked:
        raise ValueError(f"metrics must name at least one of {', '.join(METRICS)}, got none")
    for name in asked:
        if name not in METRICS:
            near = get_close_matches(name, METRICS, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"metrics must be among {', '.join(METRICS)}, got {name!r}{hint}")
    names = {*asked, "recall"} if "accuracy" in asked else set(asked)
    return [name for name in METRICS if name in names]


def _check_shape(generator: Generator, reference: Dataset) -> None:
    """Raise ValueError unless the reference's examples are encoded to the samples' shape."""
    try:
        found = tuple(generator.codec.encode(reference.read(np.arange(1)), None).shape[1:])
    except ValueError as error:
        raise ValueError(f"reference {reference.name!r} does not fit the model: {error}") from error
    if found != tuple(generator.shape):
        raise ValueError(
            f"reference {reference.name!r} has examples of shape {found}, the model makes {tuple(generator.shape)}"
        )


def _viewed_shape(generator: Generator, reference: Dataset) -> tuple[int, ...]:
    """Return the shape of a decoded example in the units that distances are taken in."""
    codec = generator.codec
    return tuple(codec.normalised(codec.view(reference.read(np.arange(1)))).shape[1:])


def _shifted(progress: Progress | None, before: int, calls: int, total: int) -> Progress | None:
    """Return a counter of one budget's samples that reports forward passes of the whole sweep."""
    if progress is None:
        return None
    return lambda done, _: progress(before + done * calls, total)


@dataclass(frozen=True)
class _Samples:
    """A budget's samples: moments of all, feature rows and labels of the first ones, how many were not finite."""

    moments: Moments
    rows: NDArray[np.float64]
    labels: NDArray[np.int64] | None
    bad: int
    seconds: float


@dataclass(frozen=True)
class _Sweep:
    """What all budgets and scales of one `evaluate` share."""

    generator: Generator
    real: Reference
    wanted: Sequence[str]
    num: int
    seed: int
    k: int
    rows: int
    batch: int

    def row(self, budget: int, guidance: float | None, plan: Plan, progress: Progress | None) -> dict[str, Any]:
        """Return the row of a budget at a scale."""
        fake = self.draw(plan, progress)
        scores, notes = self.scores(fake)
        protocol = self.protocol(budget, guidance, plan)
        return {
            "method": self.generator.objective.name,
            "run": self.generator.source,
            "steps": budget,
            "guidance": guidance_in_effect(self.generator.objective, guidance),
            "network_calls": plan.network_calls,
            **scores,
            "seconds": round(fake.seconds, 4),
            "notes": [note for note in (self.generator.caution, plan.caution, *notes) if note],
            "protocol": protocol.as_dict(),
        }

    def draw(self, plan: Plan, progress: Progress | None) -> _Samples:
        """Draw samples 0..num-1 batch by batch and keep what the metrics need; sampling alone is timed."""
        moments, bad, seconds = Moments(), 0, 0.0
        kept: list[NDArray[np.float64]] = []
        labels: list[NDArray[np.int64]] = []
        for start in range(0, self.num, self.batch):
            index = range(start, min(start + self.batch, self.num))
            noise, label = self.generator.noise(self.seed, index), self.generator.labels(index)
            begun = time.perf_counter()
            x = self.generator.draw(noise, plan, label=label, seed=self.seed, index=index, batch=self.batch)
            seconds += time.perf_counter() - begun
            finite = torch.isfinite(x.flatten(1)).all(1)
            bad += int((~finite).sum())
            values = self.real.features(torch.from_numpy(self.generator.decode(x[finite])))
            moments.update(values)
            room = max(0, self.rows - start)
            kept.append(values[:room])
            if label is not None:
                labels.append(label[finite].numpy()[:room])
            if progress is not None:
                progress(index.stop, self.num)
        return _Samples(moments, np.concatenate(kept), np.concatenate(labels) if labels else None, bad, seconds)

    def scores(self, fake: _Samples) -> tuple[dict[str, float | None], list[str]]:
        """Return a value, or null, for each metric, and notes."""
        scores: dict[str, float | None] = dict.fromkeys(self.wanted)
        if "accuracy" in scores:
            scores["accuracy_real"] = self.real.judge_real
        if fake.bad:
            return scores, [f"{fake.bad} of {self.num} samples are not finite: the network has diverged"]
        notes = []
        size = min(len(self.real.rows), len(fake.rows))
        real, drawn = self.real.rows[:size], fake.rows[:size]
        if "frechet" in scores:
            scores["frechet"] = frechet_distance(self.real.moments, fake.moments, self.real.root)
            fewest, width = min(self.real.moments.count, self.num), self.real.rows.shape[1]
            if fewest <= width:
                notes.append(f"frechet: {fewest} rows for {width} features, so a covariance is not of full rank")
        if scores.keys() & {"precision", "recall"}:
            found = asdict(precision_recall(real, drawn, self.k))
            scores.update({name: value for name, value in found.items() if name in scores})
        if "energy" in scores:
            scores["energy"] = energy_distance(real, drawn)
        if "accuracy" in scores and self.real.judge is not None and fake.labels is not None:
            scores["accuracy"] = self.real.judge.accuracy(fake.rows, fake.labels)
        elif "accuracy" in scores:
            notes.append(self.real.judge_missing)
        return scores, notes

    def protocol(self, budget: int, guidance: float | None, plan: Plan) -> EvaluationProtocol:
        """Return the record of a budget at a scale."""
        generator, data = self.generator, self.real.dataset
        return EvaluationProtocol(
            num=self.num,
            reference=data.name,
            reference_hash=data.fingerprint,
            reference_num=len(data),
            features=self.real.features.name,
            resize=self.real.features.resize,
            quantised="uint8" if generator.codec.looks == "picture" else "none",
            steps=budget,
            schedule=describe_schedule(plan.schedule),
            guidance=describe_guidance(generator.objective, guidance, plan.guidance),
            labels="none" if generator.num_classes is None else "balanced",
            ema=generator.ema,
            seed=self.seed,
            device=describe_device(generator.device),
            precision=describe_precision(generator.network),
            metrics=self.parameters(),
        )

    def parameters(self) -> dict[str, dict[str, Any]]:
        """Return each metric's own parameters."""
        part = {"rows": min(self.num, len(self.real.rows))}
        known: dict[str, dict[str, Any]] = {
            "precision": {"k": self.k, **part},
            "recall": {"k": self.k, **part},
            "energy": part,
        }
        if self.real.judge is not None:
            known["accuracy"] = {"classifier": self.real.judge.name, **self.real.judge_data}
        return {name: known[name] for name in self.wanted if name in known}
