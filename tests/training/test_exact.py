"""Methods that subtract two close outputs keep the gradient that they have in float32, also in a bfloat16 run."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from anystep.core.random import Draw
from anystep.flow.query import PhaseProgress
from anystep.networks import DiTConfig
from anystep.objectives import IMM, AlphaFlow, Objective, Shortcut
from anystep.recipes import find_recipe, with_method
from anystep.run.config import Config
from anystep.run.facts import DataFacts
from anystep.training.examples import DataExamples
from anystep.training.notes import notes
from anystep.training.state import State

ROWS = 64
METHODS = {"alpha_flow": AlphaFlow(alpha_min=0.005, alpha_max=0.005, share=1.0), "imm": IMM()}


def run(method: Objective, precision: str) -> Config:
    config = with_method(find_recipe("digits-flow_matching"), method)
    network = replace(config.network, hidden=64, depth=2, heads=2)  # type: ignore[type-var]
    assert isinstance(network, DiTConfig)
    training = replace(config.training, batch=ROWS, images=ROWS, precision=precision, device="cpu")
    return replace(config, network=network, training=training)


def gradient(config: Config) -> Tensor:
    """The gradient of a batch, of a network that was moved off its zero last layer."""
    data = config.data.open("train")
    facts = DataFacts.of(data)
    state, examples = State(config, facts, torch.device("cpu")), DataExamples(data, facts.codec)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in state.network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    index = torch.arange(ROWS).numpy()
    draw = Draw(state.keys, 0, ROWS, slice(0, ROWS))
    with state.autocast():
        batch = examples.batch(index, draw)
        config.objective.loss(state.networks, batch, draw, PhaseProgress(0, 1)).rows.mean().backward()
    return torch.cat([p.grad.flatten() for p in state.network.parameters() if p.grad is not None])


def difference(method: Objective) -> float:
    """The length of the difference of the two gradients, relative to that of float32."""
    exact, low = (gradient(run(method, precision)) for precision in ("float32", "bfloat16"))
    return float((low - exact).norm() / exact.norm())


@pytest.mark.parametrize("name", METHODS)
def test_the_gradient_in_a_bfloat16_run_is_that_of_float32(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert difference(METHODS[name]) < 1e-6
    monkeypatch.setattr(type(METHODS[name]), "exact", False)
    assert difference(METHODS[name]) > 4e-3  # under autocast it is not


def test_other_methods_are_computed_in_bfloat16() -> None:
    assert 1e-4 < difference(Shortcut(M=8, time="uniform")) < 0.4


@pytest.mark.parametrize("name", METHODS)
def test_the_run_says_that_precision_has_no_effect(name: str) -> None:
    assert any("always computed in float32" in note for note in notes(run(METHODS[name], "bfloat16"), 10))
