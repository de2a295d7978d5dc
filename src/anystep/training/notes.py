"""What a person should know of a run, and would not see in its options: said when it starts, kept in `run.json`."""

from collections.abc import Iterator
from pathlib import Path

from anystep.flow.penalties import NoWeight
from anystep.run.config import Config
from anystep.run.facts import DataFacts
from anystep.run.plan import forward_units, pair_units, phases, segments
from anystep.training.ema import warmed

#: pooled rows above which an assignment takes seconds: it is cubic (SciPy, one core: 1,024 rows 0.26 s, 4,096 13 s)
POOL = 2048
#: largest `network.time_scale` that suits a method which asks for steps of any size
SMOOTH = 16.0
#: updates below which a run is a trial, whose averages nobody chose
TRIAL = 100


def notes(config: Config, num_classes: int | None = None) -> Iterator[str]:
    """Yield what is worth saying of a run on data with so many classes (None: without labels), a line each."""
    objective, network = config.objective, config.network
    if objective.uses_jvp and network.attends:
        yield f"{objective.name} differentiates in forward mode: attention is computed unfused (math)"
    if objective.exact and config.training.precision != "float32":
        yield f"{objective.name} is always computed in float32: training.precision has no effect"
    if config.init.run is not None and objective.any_step and network.time_scale > SMOOTH:
        yield (
            f"network.time_scale stays {network.time_scale:g}, that of init.run: {objective.name} wants 1 to "
            f"{SMOOTH:g}, which the run to begin with can be trained at"
        )
    if config.init.run is not None and network.prediction == "noise" and objective.predicts != "noise":
        clip = "" if config.optimizer.clip_norm is not None else " and wants --optimizer.clip-norm 1"
        yield (
            "the network says the noise, and its velocity divides by t: at d > 0 near t = 0 "
            f"{objective.name} begins far from useful{clip}; start from flow matching where there is a choice"
        )
    yield from unreached(config)
    if config.weight != NoWeight() and not objective.marked:
        yield f"weight {config.weight.name} changes nothing: {objective.name} has flow rows only, which keep theirs"
    pool = config.coupling.batches * config.training.batch
    if pool > POOL and not config.coupling.per_class:
        yield (
            f"coupling: {pool:,} pooled rows, and an assignment is cubic in them: 1,024 take a fraction of a second, "
            "4,096 many; training waits where it is not ready (lower coupling.batches, or coupling.per_class)"
        )
    if pool and num_classes is not None and not config.coupling.by_class:
        yield (
            "coupling ignores classes: a class's noise is no longer normal, as that of samples is, and these may lose "
            "their class; coupling.per_class keeps it"
        )
    if pool and any(phase.pairs is not None for phase in phases(config)):
        yield "coupling: pairs keep the noise that the teacher carried; only phases that train on data are coupled"
    for pairs in (phase.pairs for phase in phases(config)):
        if pairs is not None:
            yield (
                f"pairs: {pairs.num:,} x {pairs.steps} steps, {pair_units(config):,} network forward units of "
                f"{forward_units(config):,} in all"
            )


def data_notes(config: Config, facts: DataFacts) -> Iterator[str]:
    """Yield what is worth saying of the codecs of data and features, a line each."""
    yield from facts.codec.notes()
    for name, codec in facts.condition_codecs.items():
        yield from (f"condition {name}: {note}" for note in codec.notes())
    run = config.init.run
    if run is not None and (Path(run) / "run.json").exists():  # a resumed run no longer needs it
        theirs = DataFacts.read(Path(run))
        pairs = [("data", theirs.codec, facts.codec)]
        pairs += [
            (f"condition {name}", c, facts.condition_codecs.get(name, c)) for name, c in theirs.condition_codecs.items()
        ]
        for what, before, now in pairs:
            if before.statistics() != now.statistics():
                yield (
                    f"init.run {run} was trained on {what} with other statistics (codec {before.name}): its network "
                    f"sees this {what} shifted or scaled at first"
                )


def unreached(config: Config) -> Iterator[str]:
    """Yield a line for each decay that asks for an average over more updates, 1 / (1 - decay), than the whole run has.

    The warm-up of n updates allows one over about n / 9. A decay that is missed by less makes no great difference, and
    recipes have such: the warm-up is meant to lower it in a short run.
    """
    decays = {"evaluation": config.ema.evaluation} | (
        {"target": config.ema.target} if config.objective.uses_target else {}
    )
    updates, last = config.training.steps, segments(config)[-1]
    for name, decay in decays.items():
        if config.ema.warmup and TRIAL <= updates < 1 / (1 - decay):
            reached = warmed(last.last - last.first - 1)
            yield f"ema.{name} {decay:g} is not reached: the warm-up ends at {reached:.4g} (ema.warmup)"
