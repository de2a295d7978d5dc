"""From a run directory to a network that is ready to draw from."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from anystep.core.device import pick_device
from anystep.core.errors import RunError, UsageError, misfit
from anystep.flow.network import Network
from anystep.model.generator import Generator
from anystep.run.config import ModelConfig
from anystep.run.plan import phase_at, phases
from anystep.run.weights import Trained, Weights, read_trained


def load(
    run: str | Path,
    *,
    weights: Weights = "ema",
    device: str = "auto",
    step: int | None = None,
    imports: Sequence[str] = (),
) -> Generator:
    """Return the network of a run directory's checkpoint: the newest, or that after ``step`` updates.

    ``weights``: ``ema``, the average kept for evaluation (Frans et al. 2024 evaluates it), ``raw``, the trained
    parameters, or a number in [0.001, 0.2886], the relative width of a power average, made from those that
    `ema.profiles` kept (Karras et al. 2024, section 3). Checkpoints older than the newest few are there when
    `checkpoint.keep_every` kept them. ``imports`` are modules that the run's own classes are in: a run never imports
    one that is not named or imported. Raises RunError when ``run`` is no run directory, has no checkpoint yet or not
    that one, keeps no averages to make the width from, or the checkpoint does not fit; ValueError for other
    ``weights``.
    """
    place = pick_device(device)
    run = Path(run)
    trained = read_trained(run, weights, step, imports=imports)
    config, facts = trained.config, trained.facts
    try:
        network = config.network.build(facts.shape, facts.conditions, config.objective.M)
        network.load_state_dict(trained.weights)
    except (RuntimeError, UsageError) as error:
        where = f"checkpoint of step {trained.step} in {run}"
        raise RunError(f"{where} does not fit {run / 'config.json'}: {misfit(error)}") from error
    unfinished = phase_of(trained)
    phase = unfinished and f"this checkpoint is of phase {unfinished}: no {config.objective.name} model yet"
    return Generator(
        network=cast(Network, network.to(place).requires_grad_(False)),
        objective=config.objective,
        codec=facts.codec,
        shape=facts.shape,
        conditions=facts.conditions,
        condition_codecs=facts.condition_codecs,
        device=place,
        source=f"{run.name}, step {trained.step}" + (f", phase {unfinished}" if unfinished else ""),
        ema=described(weights, config),
        key_version=facts.key_version,
        caution="; ".join(filter(None, [phase, trained.caution])) or None,
    )


def described(weights: Weights, config: ModelConfig) -> str:
    """Return the weights as a protocol has them: "0.999", the average's decay, "none" or "power 0.1"."""
    if isinstance(weights, str):
        return f"{config.ema.evaluation:g}" if weights == "ema" else "none"
    return f"power {weights:g}"


def phase_of(trained: Trained) -> str | None:
    """Return the phase that the weights are of, with its number; None when it is the run's last, or the only one."""
    number, parts = phase_at(trained.config, trained.step), phases(trained.config)
    return None if number + 1 == len(parts) else f"{parts[number].name} ({number + 1} of {len(parts)})"
