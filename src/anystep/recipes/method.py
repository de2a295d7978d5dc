"""A run with another method, or from the weights of another run: what changes, and nothing else."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

from anystep.core.errors import UsageError, did_you_mean
from anystep.flow.coupling import CouplingConfig
from anystep.flow.penalties import NoWeight
from anystep.networks import NetworkConfig
from anystep.objectives import OBJECTIVES, Objective
from anystep.objectives.shortcut import StepLevels
from anystep.recipes.ablation import PARTS, with_parts
from anystep.recipes.families import FAMILIES
from anystep.recipes.paper import PAPER, as_published
from anystep.run.config import Config, InitConfig
from anystep.run.plan import forward_units, with_budget
from anystep.run.weights import read_trained

#: methods that train flow and self-consistency examples side by side, which a family's weight is for
WEIGHTED = ("shortcut", "improved_shortcut", "live_reflow")


def with_method(config: Config, method: str | Objective) -> Config:
    """Return the run with another method: same data, sizes and optimizer, and the same cost to half an update.

    ``method`` is an objective; or the name of one, with the settings of ``config``'s family of recipes; a name of
    `PARTS`: an improved shortcut model with the parts up to it, with ``config``'s options if it is one; or a name of
    `PAPER`: the method as published. The network gets the inputs that the method needs. The section weight stays where
    the method has examples that it acts on; that of the family's recipes only in the methods `WEIGHTED`. The family's
    transport is not for methods that re-noise between steps: new noise is not paired with anything. Raises UsageError
    for an unknown name, and when the cost is too small for the method's phases.
    """
    cost = forward_units(config)
    if isinstance(method, str) and method in PARTS:
        improved = config if config.objective.name == "improved_shortcut" else with_method(config, "improved_shortcut")
        return with_budget(with_parts(without_levers(improved), method), cost)
    if isinstance(method, str) and method in PAPER:
        made = with_method(config, PAPER[method])
        published = as_published(cast(StepLevels, made.objective))
        made = replace(made, objective=published, weight=NoWeight(), coupling=CouplingConfig())
        made = with_parts(made, list(PARTS)[-1]) if published.name == "improved_shortcut" else made
        return with_budget(replace(made, recipe=f"{family_name(config)}-{method}"), cost)
    objective = named_objective(config, method) if isinstance(method, str) else method
    for pairs in filter(None, (phase.pairs for phase in objective.phases())):
        most = int(0.25 * cost / pairs.forward_passes * pairs.num)  # generating pairs is at most a quarter of the run
        objective = replace(objective, pairs=max(1, min(pairs.num, most)))  # type: ignore[type-var]
    recipe, network = f"{family_name(config)}-{objective.name}", network_for(config, objective)
    weight = config.weight if takes_weight(config, objective) else NoWeight()
    coupling = config.coupling if takes_coupling(config, objective) else CouplingConfig()
    made = replace(config, recipe=recipe, network=network, objective=objective, weight=weight, coupling=coupling)
    return with_budget(made, cost)


def without_levers(config: Config) -> Config:
    """Return a run of `improved_shortcut` without what a family's recipes have beside its paper; options stay."""
    if family_name(config) not in FAMILIES:
        return config
    objective = named_objective(config, "improved_shortcut")
    if config.objective == objective:
        config = replace(config, objective=as_published(cast(StepLevels, objective)))
    weight = NoWeight() if is_familys(config, "weight") else config.weight
    coupling = CouplingConfig() if is_familys(config, "coupling") else config.coupling
    return replace(config, weight=weight, coupling=coupling)


def takes_weight(config: Config, objective: Objective) -> bool:
    """Return whether a method gets the weight of ``config``: a family's own is for the methods `WEIGHTED`."""
    return bool(objective.marked) and (objective.name in WEIGHTED or not is_familys(config, "weight"))


def takes_coupling(config: Config, objective: Objective) -> bool:
    """Return whether a method gets the coupling of ``config``: a family's own is for methods that add no noise."""
    return not objective.stochastic or not is_familys(config, "coupling")


def is_familys(config: Config, section: Literal["weight", "coupling"]) -> bool:
    """Return whether a section of ``config`` is that of its family's main recipe, rather than chosen for the run."""
    family = FAMILIES.get(family_name(config))
    return family is not None and bool(getattr(config, section) == getattr(family.main, section))


def network_for(config: Config, objective: Objective) -> NetworkConfig:
    """Return the run's network with the inputs and the output that another method needs, of the same size."""
    fields = {name: allowed[0] for name, allowed in objective.network_inputs().items()}
    if objective.any_step != config.objective.any_step:
        # With steps of any size, predictions should change little between similar steps: with a larger scale, the
        # derivative in time would be mostly that of the fastest sinusoids.
        fields["time_scale"] = 10.0 if objective.any_step else type(config.network).time_scale
    return config.network.with_inputs(**fields)


def named_objective(config: Config, method: str) -> Objective:
    """Return a method with the settings of ``config``'s family, or its defaults. Raises UsageError."""
    if method not in OBJECTIVES:
        names = f"methods: {', '.join([*OBJECTIVES, *PAPER])}, and parts: {', '.join(PARTS)}"
        raise UsageError(f"no method {method!r}; {names}{did_you_mean(method, [*OBJECTIVES, *PAPER, *PARTS])}")
    family = FAMILIES.get(family_name(config))
    settings = {} if family is None else {**family.settings, family.main.objective.name: family.main.objective}
    return settings.get(method) or OBJECTIVES[method]()


def family_name(config: Config) -> str:
    """Return a recipe's name without its method's."""
    names = [name for name in [*PAPER, config.objective.name] if config.recipe.endswith(f"-{name}")]
    return config.recipe.removesuffix(f"-{names[0]}") if names else config.recipe


def from_run(config: Config, run: Path) -> Config:
    """Return the run, initialised from the weights of ``run``, with a network of its kind and size.

    An input d or W that the method does not use is removed, and one that it needs and ``run`` lacks is added. Raises
    RunError if ``run`` has no checkpoint, UsageError if the method needs a network with another kind of prediction.
    """
    objective, trained = config.objective, read_trained(run).config
    inputs, network = objective.network_inputs(), trained.network
    if network.prediction not in inputs["prediction"]:
        raise UsageError(
            f"cannot initialise {objective.name} from {run} ({trained.objective.name}): its network predicts "
            f"{network.prediction}, and {objective.name} needs one that predicts {objective.predicts}"
        )
    if not objective.uses_step or network.step_encoding not in inputs["step_encoding"]:
        network = network.with_inputs(step_encoding=config.network.step_encoding)
    network = network.with_inputs(guidance_input=objective.takes_guidance)
    return replace(config, network=network, init=InitConfig(run=str(run)))
