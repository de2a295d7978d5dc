"""From a run directory to a network that is ready to draw from."""

from pathlib import Path
from typing import Literal

import torch

from anystep.evaluation.generator import Generator
from anystep.training import checkpoint
from anystep.training.errors import RunError
from anystep.training.state import DataFacts
from anystep.training.trainer import pick_device, read_config

Weights = Literal["ema", "raw"]


def load_run(run: Path, *, weights: Weights = "ema", device: str = "auto", step: int | None = None) -> Generator:
    """Return the network of a run directory's checkpoint: the newest, or that after ``step`` updates.

    ``weights``: ``ema``, the average kept for evaluation (P1 evaluates it), or ``raw``, the trained parameters.
    Checkpoints older than the newest few are there when `checkpoint.keep_every` kept them. Raises RunError when ``run``
    is no run directory, has no checkpoint yet or not that one, or the checkpoint does not fit.
    """
    if not run.is_dir():
        raise RunError(f"no run directory {run}")
    if not (run / "config.json").exists():
        raise RunError(f"{run} is not a run directory: it has no config.json")
    config, facts, place = read_config(run), DataFacts.read(run), pick_device(device)
    found = dict(checkpoint.listing(run / "checkpoints"))
    if not found:
        raise RunError(f"{run} has no checkpoint yet: train it first, or go on with --resume")
    step = max(found) if step is None else step
    if step not in found:
        raise RunError(f"{run} has no checkpoint of step {step}; it has those of steps {', '.join(map(str, found))}")
    path = found[step]
    group = "ema_evaluation" if weights == "ema" else "network"
    network = config.network.build(facts.shape, facts.num_classes, config.objective.M)
    weights_found = checkpoint.load(path, (group,)).groups[group]
    try:
        network.load_state_dict(weights_found)
    except RuntimeError as error:
        raise RunError(f"checkpoint {path} does not fit {run / 'config.json'}: {checkpoint.misfit(error)}") from error
    return Generator(
        network=network.to(place).requires_grad_(False),
        objective=config.objective,
        normalization=facts.normalization,
        shape=facts.shape,
        num_classes=facts.num_classes,
        class_names=facts.class_names,
        device=torch.device(place),
        source=f"{run.name}, step {step}",
        ema=f"{config.ema.evaluation:g}" if weights == "ema" else "none",
    )
