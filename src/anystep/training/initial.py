"""A trained run as something to begin with: its weights, and what they need to fit."""

from dataclasses import asdict

import torch
from torch import Tensor, nn

from anystep.core.errors import RunError, misfit
from anystep.networks import VelocityNetwork
from anystep.networks.embeddings import Input
from anystep.run.config import Config, ModelConfig
from anystep.run.facts import DataFacts
from anystep.run.weights import Trained

#: inputs that one network has and another may lack, by where the parameters begin that only the one has
INPUTS: dict[Input, str] = {"step": "condition.step.", "guidance": "condition.guidance."}


def adopt(network: nn.Module, config: Config, facts: DataFacts, trained: Trained) -> None:
    """Give ``network``, which is as ``config`` says, the trained weights.

    An input that they lack, d or W, is made to contribute exactly nothing. Where theirs means something else, or there
    is none here, its value at d = 0 or at W = 1 becomes a constant: the output is then theirs there, to rounding,
    whatever d and W. Raises RunError when the data's shape, classes or codec, or the network but for these inputs, are
    of another kind.
    """
    theirs, ours = (
        {"name": each.network.name} | asdict(each.network)  # type: ignore[call-overload]
        for each in (trained.config, config)
    )
    for field, value in ours.items():
        if field not in {"step_encoding", "guidance_input"} and value != theirs.get(field, value):
            raise RunError(
                f"init.run {trained.run} has network.{field} {theirs[field]}, and this run {value}: take the network "
                "from there with --init-from, or set it alike"
            )
    for what, ours, theirs in (
        ("examples of shape", facts.shape, trained.facts.shape),
        ("classes", facts.num_classes, trained.facts.num_classes),
        ("data of codec", facts.codec.name, trained.facts.codec.name),
    ):
        if ours != theirs:
            raise RunError(f"init.run {trained.run} was trained on {what} {theirs}, and this data has {ours}")
    try:
        weights = without(unlike(config, trained.config), facts, trained)
        own = network.state_dict()
        fresh = {name: own[name] for name in own.keys() - weights.keys() if name.startswith(tuple(INPUTS.values()))}
        network.load_state_dict(weights | fresh)
    except RuntimeError as error:
        raise RunError(f"the weights of init.run {trained.run} do not fit: {misfit(error)}") from error
    for name, prefix in INPUTS.items():
        if isinstance(network, VelocityNetwork) and any(parameter.startswith(prefix) for parameter in fresh):
            network.forget(name)


def unlike(config: Config, trained: ModelConfig) -> list[Input]:
    """Return the inputs of the trained network that this one has not, or that mean something else here."""
    ours, theirs = config.network, trained.network
    changed: list[Input] = []
    if theirs.step_encoding != "none" and not told_alike(config, trained):
        changed.append("step")
    if theirs.guidance_input and not ours.guidance_input:
        changed.append("guidance")
    return changed


def told_alike(one: Config, other: ModelConfig) -> bool:
    """Return whether their networks are told the step in the same way: log2 counts the rungs of a ladder of M."""
    encoding = one.network.step_encoding
    same = encoding == other.network.step_encoding
    return same and (encoding != "log2" or one.objective.M == other.objective.M)


def without(inputs: list[Input], facts: DataFacts, trained: Trained) -> dict[str, Tensor]:
    """Return the trained weights without these inputs: what they say at d = 0 and at W = 1 is in a bias."""
    if not inputs:
        return trained.weights
    with torch.random.fork_rng(devices=[]):
        network = trained.config.network.build(facts.shape, facts.conditions, trained.config.objective.M)
    if not isinstance(network, VelocityNetwork):
        name = trained.config.network.name
        raise RunError(f"init.run {trained.run}: a network {name} cannot leave out or change its {inputs[0]}")
    network.load_state_dict(trained.weights)
    for name in inputs:
        network.fold(name)
    gone = tuple(INPUTS[name] for name in inputs)
    return {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(gone)}
