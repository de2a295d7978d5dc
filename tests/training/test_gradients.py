"""Gradients by kind of example: closed forms, and a run that does not notice that they are measured."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.training.same import assert_same, assert_same_tensors, kept_gradients, stopping
from torch import nn

from anystep.core.errors import UsageError
from anystep.flow.penalties import ConstantWeight, LearnedWeight
from anystep.objectives import Losses, Shortcut
from anystep.run.config import Config
from anystep.run.facts import DataFacts
from anystep.run.plan import segments
from anystep.training.examples import DataExamples
from anystep.training.gradients import KindGradients
from anystep.training.state import State
from anystep.training.trainer import train
from anystep.training.update import update


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_closed_form_of_a_linear_network() -> None:
    """Losses w . x of a linear network have the gradient x: their sums' norms and cosines are those of vectors."""
    network = nn.Linear(2, 1)
    x = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 2.0], [4.0, 4.0], [-1.0, 0.0]])
    tag = torch.tensor([0, 0, 1, 2, 1])
    kinds = KindGradients(network, Shortcut(M=4))
    for half in (slice(0, 3), slice(3, 5)):  # micro-batches
        rows = nn.functional.linear(x[half], network.weight).squeeze(1)
        kinds.add(Losses(rows, torch.zeros(len(rows)), tag[half]), batch=5)
        rows.sum().backward()
    found = kinds.compare()
    # flow (4, 0), 1/2 (-1, 2), 1 (4, 4), the last two (3, 6); over 5
    norms = {"flow": 4, "1/2": math.sqrt(5), "1": math.sqrt(32), "marked": math.sqrt(45)}
    assert found["gradient_norm"] == pytest.approx({kind: norm / 5 for kind, norm in norms.items()})
    cosines = {"1/2": -1 / math.sqrt(5), "1": math.sqrt(0.5), "marked": 3 / math.sqrt(45)}
    assert found["gradient_cosine"] == pytest.approx(cosines)
    assert network.weight.grad is not None and network.weight.grad.tolist() == [x.sum(0).tolist()]
    assert network.bias.grad is None


def test_what_is_missing_is_not_compared() -> None:
    network = nn.Linear(2, 1)
    kinds = KindGradients(network, Shortcut(M=4))
    rows = network(torch.ones(2, 2)).squeeze(1) * torch.tensor([0.0, 1.0])
    kinds.add(Losses(rows, torch.zeros(2), torch.tensor([0, 2])), batch=2)
    found = kinds.compare()
    assert found["gradient_norm"].keys() == {"flow", "1", "marked"} and found["gradient_cosine"] == {}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_parts_are_those_of_the_updates_gradient(
    small: Config, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    """|f + m|^2 = |f|^2 + |m|^2 + 2 |f| |m| cos, with the weight in m: flow and marked examples are the whole batch."""
    training = replace(small.training, accumulate=accumulate)
    config = replace(small, weight=ConstantWeight(factors=(4.0,)), training=training)
    config = replace(config, log=replace(config.log, gradients=32))
    data = config.data.open("train")
    facts = DataFacts.of(data)
    state, (segment,) = State(config, facts, torch.device("cpu")), segments(config)
    gradients, examples = kept_gradients(monkeypatch), DataExamples(data, facts.codec)
    for _ in range(3):
        state.meter.clear()
        update(state, examples, segment)
    record = state.meter.record()
    (f, m), cosine = (record["gradient_norm"][kind] for kind in ("flow", "marked")), record["gradient_cosine"]["marked"]
    assert f * f + m * m + 2 * f * m * cosine == pytest.approx(float(gradients[-1].norm()) ** 2, rel=1e-4)
    assert len(record["gradient_cosine"]) == 8 and record["gradient_norm"]["1/64"] > 0


def test_a_run_does_not_notice_the_measurement(small: Config, tmp_path: Path) -> None:
    config = replace(small, weight=LearnedWeight(), training=replace(small.training, accumulate=2))
    train(config, tmp_path / "without")
    train(replace(config, log=replace(config.log, gradients=64)), tmp_path / "with")
    assert_same_tensors(tmp_path / "without", tmp_path / "with")
    fields = {"gradient_norm", "gradient_cosine"}
    for plain, record in zip(records(tmp_path / "without"), records(tmp_path / "with"), strict=True):
        assert plain == {name: value for name, value in record.items() if name not in fields}
    # every second update, from the first: not in the window of update 2 alone
    assert [bool(fields & record.keys()) for record in records(tmp_path / "with")][:3] == [True, False, True]


def test_an_interruption_changes_no_measurement(tiny: Config, tmp_path: Path) -> None:
    config = replace(tiny, log=replace(tiny.log, gradients=32))
    train(config, tmp_path / "whole")
    stop, watch = stopping(6)
    train(config, tmp_path / "parts", watch=watch, stop=stop)
    train(config, tmp_path / "parts", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_a_compiled_network_is_not_differentiated_twice(small: Config) -> None:
    with pytest.raises(UsageError, match=r"^log\.gradients differentiates a forward pass several times, which torch"):
        replace(small, log=replace(small.log, gradients=1), training=replace(small.training, compile=True))
