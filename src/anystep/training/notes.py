"""Warnings about a run that its options do not show: reported when it starts, and stored in `run.json`."""

from collections.abc import Iterator
from pathlib import Path

from anystep.codecs import Codec
from anystep.flow.penalties import RisingWeight
from anystep.objectives.shortcut import StepLevels
from anystep.run.config import Config
from anystep.run.facts import DataFacts
from anystep.run.plan import forward_units, pair_units, phases, segments
from anystep.training.ema import warmup_decay

#: pooled examples above which an assignment takes seconds: its cost is cubic (SciPy, one core: 1,024 examples 0.26 s,
#: 4,096 13 s)
SLOW_ASSIGNMENT = 2048
#: largest `network.time_scale` that suits a method with steps of any size
SMOOTH = 16.0
#: updates below which a run is a trial, whose EMA decays do not matter
TRIAL = 100


def notes(config: Config, num_classes: int | None = None) -> Iterator[str]:
    """Yield warnings about a run on data with ``num_classes`` (None: without labels)."""
    objective, network = config.objective, config.network
    pairs = next((phase.pairs for phase in phases(config) if phase.pairs is not None), None)
    if objective.uses_jvp and network.attends:
        yield f"{objective.name} differentiates in forward mode: attention is computed unfused (math)"
    if objective.exact and config.training.precision == "bfloat16":
        yield f"{objective.name} is always computed in float32: training.precision has no effect"
    if config.init.run is not None and objective.any_step and network.time_scale > SMOOTH:
        yield (
            f"network.time_scale stays {network.time_scale:g}, that of init.run: {objective.name} wants 1 to "
            f"{SMOOTH:g}, with which the run to start from can be trained"
        )
    if config.init.run is not None and network.prediction == "noise" and objective.predicts != "noise":
        clip = "" if config.optimizer.clip_norm is not None else " and wants --optimizer.clip-norm 1"
        yield (
            "the network predicts noise, and its velocity is divided by t: at d > 0 near t = 0 "
            f"{objective.name} starts far from useful{clip}; prefer a run of flow matching to start from"
        )
    yield from unreached_decays(config)
    pool = config.coupling.batches * config.training.batch
    if pool > SLOW_ASSIGNMENT and not (config.coupling.per_class and num_classes is not None):
        yield (
            f"coupling: {pool:,} pooled examples, and an assignment's cost is cubic in them: 1,024 take a fraction of "
            "a second, 4,096 many; training waits for it (lower coupling.batches, or set coupling.per_class)"
        )
    if pool and num_classes is not None and not config.coupling.by_class:
        yield (
            "coupling ignores classes: the noise of a class is no longer normal, as that of samples is, which may lose "
            "their class; coupling.per_class avoids this"
        )
    if pool and pairs is not None:
        yield "coupling: pairs keep the noise of the teacher; only phases that train on data are coupled"
    if pairs is not None:
        yield (
            f"pairs: {pairs.num:,} x {pairs.steps} steps, {pair_units(config):,} network forward passes of "
            f"{forward_units(config):,} in all"
        )


def unreached_decays(config: Config) -> Iterator[str]:
    """Yield a line for each EMA decay whose average is over more updates, 1 / (1 - decay), than the run has.

    The warm-up of n updates allows an average over about n / 9. A decay that is missed by less makes little difference,
    and recipes have such decays: the warm-up is meant to lower them in a short run.
    """
    decays = {"evaluation": config.ema.evaluation}
    if config.objective.uses_target:
        decays["target"] = config.ema.target
    updates, last = config.training.steps, segments(config)[-1]
    for name, decay in decays.items():
        if config.ema.warmup and TRIAL <= updates < 1 / (1 - decay):
            reached = warmup_decay(last.last - last.first - 1)
            yield f"ema.{name} {decay:g} is not reached: the warm-up ends at {reached:.4g} (ema.warmup)"


def length_note(before: Config, config: Config) -> Iterator[str]:
    """Yield a line if a run that resumes has another length than ``before``, and options that are fractions of it."""
    weight, objective = config.weight, config.objective
    shares = {"optimizer.decay": config.optimizer.decay}
    if isinstance(objective, StepLevels) and objective.share_start is not None:
        shares |= {"objective.share_change": objective.share_change[1]}
    if isinstance(weight, RisingWeight):
        shares |= {"weight.none_until": weight.none_until, "weight.full_from": weight.full_from}
    if before.training.steps != config.training.steps and (names := [name for name, share in shares.items() if share]):
        yield (
            f"training.images is {config.training.images:,}, and was {before.training.images:,}: {', '.join(names)} "
            f"{'are fractions' if len(names) > 1 else 'is a fraction'} of it, and the run continues on the schedule of "
            "the new length"
        )


def data_notes(config: Config, facts: DataFacts) -> Iterator[str]:
    """Yield warnings about the fitted codecs of data and features."""
    fitted = _codecs(facts)
    for what, codec in fitted.items():
        yield from (note if what == "data" else f"{what}: {note}" for note in codec.notes())
    run = config.init.run
    if run is not None and (Path(run) / "run.json").exists():  # a resumed run no longer needs it
        for what, before in _codecs(DataFacts.read(Path(run))).items():
            if what in fitted and before.statistics() != fitted[what].statistics():
                yield (
                    f"init.run {run} was trained on {what} with other statistics (codec {before.name}): its network "
                    f"sees this {what} shifted or scaled at first"
                )


def _codecs(facts: DataFacts) -> dict[str, Codec]:
    return {"data": facts.codec} | {f"condition {name}": codec for name, codec in facts.condition_codecs.items()}
