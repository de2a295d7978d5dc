"""From a run directory to a network that is ready to draw from."""

from pathlib import Path

from anystep.evaluation.generator import Generator
from anystep.training.checkpoint import misfit
from anystep.training.errors import RunError
from anystep.training.initial import Trained, Weights, read_trained
from anystep.training.phases import phase_at, phases
from anystep.training.trainer import pick_device


def load_run(run: Path, *, weights: Weights = "ema", device: str = "auto", step: int | None = None) -> Generator:
    """Return the network of a run directory's checkpoint: the newest, or that after ``step`` updates.

    ``weights``: ``ema``, the average kept for evaluation (P1 evaluates it), or ``raw``, the trained parameters.
    Checkpoints older than the newest few are there when `checkpoint.keep_every` kept them. Raises RunError when ``run``
    is no run directory, has no checkpoint yet or not that one, or the checkpoint does not fit.
    """
    place = pick_device(device)
    trained = read_trained(run, weights, step)
    config, facts = trained.config, trained.facts
    network = config.network.build(facts.shape, facts.num_classes, config.objective.M)
    try:
        network.load_state_dict(trained.weights)
    except RuntimeError as error:
        where = f"checkpoint of step {trained.step} in {run}"
        raise RunError(f"{where} does not fit {run / 'config.json'}: {misfit(error)}") from error
    unfinished = phase_of(trained)
    return Generator(
        network=network.to(place).requires_grad_(False),
        objective=config.objective,
        normalization=facts.normalization,
        shape=facts.shape,
        num_classes=facts.num_classes,
        class_names=facts.class_names,
        device=place,
        source=f"{run.name}, step {trained.step}" + (f", phase {unfinished}" if unfinished else ""),
        ema=f"{config.ema.evaluation:g}" if weights == "ema" else "none",
        caution=unfinished and f"this checkpoint is of phase {unfinished}: no {config.objective.name} model yet",
    )


def phase_of(trained: Trained) -> str | None:
    """Return the phase that the weights are of, with its number; None when it is the run's last, or the only one."""
    number, parts = phase_at(trained.config, trained.step), phases(trained.config)
    return None if number + 1 == len(parts) else f"{parts[number].name} ({number + 1} of {len(parts)})"
