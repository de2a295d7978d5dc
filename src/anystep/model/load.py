"""From a run directory to a network that is ready to sample from."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from anystep.core.device import pick_device
from anystep.core.errors import RunError, UsageError, misfit
from anystep.flow.query import Network
from anystep.model.generator import Generator
from anystep.run.plan import phase_at, phases
from anystep.run.weights import Weights, read_trained


def load(
    run: str | Path,
    *,
    weights: Weights = "ema",
    device: str = "auto",
    step: int | None = None,
    imports: Sequence[str] = (),
) -> Generator:
    """Return the network of a run directory's checkpoint: the newest, or that after ``step`` updates.

    ``weights``: ``ema``, the evaluation EMA (as in Frans et al. 2024), ``raw``, the trained parameters, or a number in
    [0.001, 0.2886], the relative width of a power average, computed from those that `ema.profiles` stored (Karras et
    al. 2024, section 3). Older checkpoints than the newest few exist if `checkpoint.keep_every` kept them.
    ``imports`` names the modules of the run's own classes: loading imports no other. Raises RunError when ``run`` is no
    run directory, has no such checkpoint or no averages to compute the width from, or the checkpoint does not fit;
    ValueError for other ``weights``.
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
    source, cautions, parts = f"{run.name}, step {trained.step}", [trained.caution], phases(config)
    number = phase_at(config, trained.step)
    if number + 1 < len(parts):
        phase = f"{parts[number].name} ({number + 1} of {len(parts)})"
        source += f", phase {phase}"
        cautions.insert(0, f"this checkpoint is of phase {phase}: no {config.objective.name} model yet")
    average = {"ema": f"{config.ema.evaluation:g}", "raw": "none"}
    return Generator.of(
        facts,
        network=cast(Network, network.to(place).requires_grad_(False)),
        objective=config.objective,
        device=place,
        source=source,
        ema=average[weights] if isinstance(weights, str) else f"power {weights:g}",
        caution="; ".join(filter(None, cautions)) or None,
    )
