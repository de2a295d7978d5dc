"""A network that draws random numbers of its own in training: they depend on the run's seed and the update alone."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from tests.training.same import assert_same, contents, stopping
from torch import nn

from anystep.core.random import Draw, Keys
from anystep.data import TwoMoons
from anystep.flow.condition import ConditionSpec
from anystep.networks import NETWORKS, MLPConfig
from anystep.networks.mlp import MLP
from anystep.run.config import Config
from anystep.training.trainer import train


@dataclass(frozen=True)
class DropoutConfig(MLPConfig):
    name: ClassVar[str] = "dropout"
    dropout: float = 0.3

    def build(self, shape: tuple[int, ...], conditions: ConditionSpec, M: int = 128) -> MLP:
        network = MLP(self, shape, conditions, M)
        network.leave = nn.Sequential(nn.Dropout(self.dropout), network.leave)  # type: ignore[assignment]
        return network


@pytest.fixture
def config(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setitem(NETWORKS, "dropout", DropoutConfig)
    training = replace(tiny.training, accumulate=2)
    return replace(
        tiny, data=TwoMoons(num=500, labels=True), network=DropoutConfig(hidden=16, depth=1), training=training
    )


@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_stopped_run_resumes_with_the_dropout_of_one_that_was_not(config: Config, tmp_path: Path, at: int) -> None:
    torch.manual_seed(1)
    train(config, tmp_path / "whole")
    stop, watch = stopping(at)
    train(config, tmp_path / "parts", watch=watch, stop=stop)
    torch.manual_seed(2)
    train(config, tmp_path / "parts", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_dropout_acts_and_depends_on_the_seed(config: Config, tmp_path: Path) -> None:
    train(config, tmp_path / "with")
    train(replace(config, network=replace(config.network, dropout=0.0)), tmp_path / "without")
    assert contents(tmp_path / "with")["log"] != contents(tmp_path / "without")["log"]


def test_steps_micro_batches_and_seeds_have_other_masks() -> None:
    def numbers(seed: int, step: int, first: int) -> tuple[float, ...]:
        Draw(Keys(seed), step, 64, slice(first, first + 16)).seed_network()
        return tuple(torch.rand(4).tolist())

    with torch.random.fork_rng(devices=[]):
        keys = [(0, 0, 0), (0, 0, 16), (0, 0, 48), (0, 1, 0), (1, 0, 0)]
        assert len({numbers(*key) for key in keys}) == len(keys)
        assert numbers(0, 1, 16) == numbers(0, 1, 16)


def test_a_run_leaves_the_callers_random_numbers_alone(config: Config, tmp_path: Path) -> None:
    """Also between updates: a caller who draws in `watch` gets the numbers that would come without the run."""
    torch.manual_seed(5)
    expected = [torch.rand(()) for _ in range(7)]
    torch.manual_seed(5)
    drawn = []
    train(config, tmp_path / "run", watch=lambda step, record: drawn.append(torch.rand(())))
    assert [*drawn, torch.rand(())] == expected
