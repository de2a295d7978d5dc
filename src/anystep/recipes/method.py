"""One run with another method: what changes with the method, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from anystep.core.errors import UsageError
from anystep.networks import NetworkConfig
from anystep.objectives import OBJECTIVES, Objective
from anystep.run.config import Config, InitConfig
from anystep.run.plan import forward_units, with_budget
from anystep.run.weights import read_trained

#: t and d in [0, 1] times this go into the sinusoids of a network that is asked for steps of any size: neighbouring
#: steps should have neighbouring answers, and a derivative in time is else mostly that of the fastest sinusoids
SMOOTH_TIME = 10.0
#: largest share of a run's cost that goes into making pairs
PAIRS_SHARE = 0.25


@dataclass(frozen=True)
class Family:
    """Recipes on one kind of data: flow matching's run, and what differs from a method's defaults there."""

    base: Config
    choices: Mapping[str, Objective]

    def objective(self, method: str) -> Objective:
        """Return a method with the family's choices."""
        return self.choices.get(method) or OBJECTIVES[method]()

    def recipe(self, method: str) -> Config:
        """Return a method's run: what flow matching's costs, it costs."""
        return change_method(self.base, self.objective(method))


def family_name(config: Config) -> str:
    """Return a recipe's name without its method's."""
    return config.recipe.removesuffix(f"-{config.objective.name}")


def change_method(config: Config, objective: Objective) -> Config:
    """Return the run with another method: same data, sizes and optimizer, and the same cost.

    The network is told what the method needs. Pairs are as many as the method says, but for a quarter of the cost at
    most. Raises ValueError when the cost is too small for the method's phases.
    """
    units = forward_units(config)
    for pairs in filter(None, (phase.pairs for phase in objective.phases())):
        most = int(PAIRS_SHARE * units / pairs.cost * pairs.num)
        objective = replace(objective, pairs=max(1, min(pairs.num, most)))  # type: ignore[type-var]
    made = replace(
        config,
        recipe=f"{family_name(config)}-{objective.name}",
        network=network_for(config, objective),
        objective=objective,
    )
    return with_budget(made, units)


def network_for(config: Config, objective: Objective) -> NetworkConfig:
    """Return the run's network with the inputs and the output that another method needs, of the same size."""
    encoding = "none" if not objective.uses_step else "continuous" if objective.any_step else "log2"
    fields: dict[str, Any] = {
        "step_encoding": encoding,
        "guidance_input": objective.takes_guidance,
        "prediction": objective.predicts,
    }
    if objective.any_step != config.objective.any_step:
        usual = type(config.network).time_scale
        fields["time_scale"] = SMOOTH_TIME if objective.any_step else usual
    return config.network.with_inputs(**fields)


def from_run(config: Config, run: Path) -> Config:
    """Return the run beginning with the weights of ``run``, on a network of its kind and size.

    A step input or a guidance scale that the method has no use for is left out, and one that it needs and ``run``
    lacks is put in (`initial.adopt`). Raises RunError when ``run`` has no checkpoint, UsageError when its network says
    something else than the method needs.
    """
    objective, theirs = config.objective, read_trained(run).config
    network, encoding = theirs.network, theirs.network.step_encoding
    if objective.predicts == "noise" and network.prediction != "noise":
        raise UsageError(
            f"{objective.name} cannot begin with {run}, a run of {theirs.objective.name}: that network says "
            f"velocities, and {objective.name} needs one that says the noise"
        )
    if not objective.uses_step or encoding == "none" or (objective.any_step and encoding == "log2"):
        network = network.with_inputs(step_encoding=config.network.step_encoding)
    network = network.with_inputs(guidance_input=objective.takes_guidance)
    return replace(config, network=network, init=InitConfig(run=str(run)))
