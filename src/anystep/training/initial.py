"""Initial weights from a trained run, whose network may have other inputs for d and W."""

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from anystep.core.errors import RunError, misfit
from anystep.networks import VelocityNetwork
from anystep.networks.embeddings import Input
from anystep.run.config import Config, ModelConfig
from anystep.run.facts import DataFacts
from anystep.run.weights import Trained

#: optional inputs of a network -> prefix of their parameters
INPUTS: dict[Input, str] = {"step": "condition.step.", "guidance": "condition.guidance."}


def load_weights(network: nn.Module, config: Config, facts: DataFacts, trained: Trained) -> None:
    """Load the trained weights into ``network``, which is built from ``config``.

    An input (d, W) missing in the trained weights starts with zero contribution. One missing here, or encoded
    differently, is fixed at d = 0 or W = 1: the output equals the trained network's there, up to rounding, for every d
    and W. Raises RunError when the data's shape, classes or codec differ, or the network apart from these inputs.
    """
    check_same_kind(config, facts, trained)
    changed = [name for name in INPUTS if encoding(config, name) != encoding(trained.config, name)]
    dropped = [name for name in changed if encoding(trained.config, name) is not None]
    added = [name for name in changed if encoding(config, name) is not None]
    if changed and not isinstance(network, VelocityNetwork):
        kind = config.network.name
        raise RunError(f"init.run {trained.run}: a network {kind} cannot add, drop or change its input {changed[0]}")
    weights = dict(trained.weights)
    try:
        if dropped:
            with torch.random.fork_rng(devices=[]):
                old: Any = trained.config.network.build(facts.shape, facts.conditions, trained.config.objective.M)
            old.load_state_dict(weights)
            for name in dropped:
                old.condition.drop_input(name)
            prefixes = tuple(INPUTS[name] for name in dropped)
            weights = {name: tensor for name, tensor in old.state_dict().items() if not name.startswith(prefixes)}
        prefixes = tuple(INPUTS[name] for name in added)
        weights |= {name: tensor for name, tensor in network.state_dict().items() if name.startswith(prefixes)}
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise RunError(f"the weights of init.run {trained.run} do not fit: {misfit(error)}") from error
    if isinstance(network, VelocityNetwork):
        for name in added:
            network.condition.zero_input(name)


def encoding(config: Config | ModelConfig, name: Input) -> tuple[object, ...] | None:
    """Return how the network encodes an input, None without it; log2 counts the levels of M smallest steps."""
    network = config.network
    if name == "guidance":
        return (True,) if network.guidance_input else None
    if network.step_encoding == "none":
        return None
    return (network.step_encoding, config.objective.M if network.step_encoding == "log2" else None)


def check_same_kind(config: Config, facts: DataFacts, trained: Trained) -> None:
    """Raise RunError when the data's shape, classes or codec differ, or an option of the network but for its inputs."""
    new, old = (
        {"name": each.network.name} | asdict(each.network)  # type: ignore[call-overload]
        for each in (config, trained.config)
    )
    for field, value in new.items():
        if field not in {"step_encoding", "guidance_input"} and value != old.get(field, value):
            raise RunError(
                f"init.run {trained.run} has network.{field} {old[field]}, and this run {value}: take the network "
                "from there with --init-from, or set the same value"
            )
    for what, ours, theirs in (
        ("examples of shape", facts.shape, trained.facts.shape),
        ("classes", facts.conditions.num_classes, trained.facts.conditions.num_classes),
        ("data of codec", facts.codec.name, trained.facts.codec.name),
    ):
        if ours != theirs:
            raise RunError(f"init.run {trained.run} was trained on {what} {theirs}, and this data has {ours}")
