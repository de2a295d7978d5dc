"""A run's expected time is measured on its own updates. Here the clock counts forward passes instead of seconds."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from anystep.data import TwoMoons
from anystep.flow.condition import class_labels
from anystep.networks import VelocityNetwork
from anystep.objectives import OBJECTIVES
from anystep.recipes import find_recipe, with_method
from anystep.run.config import Config
from anystep.run.plan import forward_units
from anystep.training import speed
from anystep.training.speed import measure


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time: an example through the network takes 1 s, its backward pass 2 s."""
    now = [0.0]
    forward = VelocityNetwork.forward

    def timed(self: VelocityNetwork, x: Tensor, *rest: Any, **named: Any) -> Tensor:
        passes = 3 if torch.is_grad_enabled() else 2 if torch._C._functorch.peek_interpreter_stack() else 1
        now[0] += passes * len(x)
        return forward(self, x, *rest, **named)

    monkeypatch.setattr(VelocityNetwork, "forward", timed)
    monkeypatch.setattr(speed, "perf_counter", lambda: now[0])
    return now


@pytest.fixture
def small() -> Config:
    config = find_recipe("two_moons-flow_matching")
    network = replace(config.network, hidden=8, depth=1)  # type: ignore[type-var]
    training = replace(config.training, images=256 * 200, batch=256)
    return replace(config, data=TwoMoons(labels=True), network=network, training=training)


@pytest.mark.parametrize("updates", [12, 0.5], ids=["whole batches", "a part of a batch"])
@pytest.mark.parametrize("method", OBJECTIVES)
def test_a_run_takes_what_its_forward_passes_take(
    small: Config, clock: list[float], method: str, updates: float
) -> None:
    """All phases, teachers and pairs; spread over the run, as alpha-Flow's updates become dearer."""
    config = with_method(small, method)
    within = 256 * 3 * updates
    found = measure(config, small.data.open("train"), within)
    assert found.seconds == pytest.approx(forward_units(config), rel=0.02 if updates > 1 else 0.2)
    assert found.images * 3 >= within / 2
    assert clock[0] < 4 * within + 256 * 8  # what one micro-batch and the search for its size may add


def test_the_size_is_the_networks_own(small: Config) -> None:
    config = with_method(small, "shortcut")
    found = measure(config, small.data.open("train"), 0.05)
    network = config.network.build((2,), class_labels(2), config.objective.M)
    assert found.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert found.device == "cpu" and found.seconds > 0
