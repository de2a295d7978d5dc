"""Weights: what they do to the gradient, what the log shows, statistics and learned parameters over an interruption."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from tests.training.same import assert_same, assert_same_tensors, kept_gradients, stopping
from torch import Tensor, nn

from anystep.core.errors import UsageError
from anystep.core.random import Keys
from anystep.data import batch_indices
from anystep.flow.penalties import WEIGHTS, Haar, NoWeight, OwnErrorWeight, Weight
from anystep.flow.query import PhaseProgress, Query
from anystep.flow.rise import rise
from anystep.objectives import OBJECTIVES, Draw, FlowMatching, ImprovedShortcut, Shortcut
from anystep.run.config import Config
from anystep.run.facts import DataFacts
from anystep.run.plan import segments
from anystep.training import update
from anystep.training.examples import DataExamples
from anystep.training.state import State
from anystep.training.trainer import train

from .conftest import Whole

CPU = torch.device("cpu")
UNUSED: Any = None


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def last_group(run: Path) -> dict[str, Tensor]:
    (path,) = sorted((run / "checkpoints").glob("step-*"))[-1:]
    return load_file(path / "penalty.safetensors")


@pytest.mark.parametrize(("power", "cap"), [(1.0, 100.0), (0.5, 100.0), (1.0, 2.0)])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_marked_rows_pull_with_the_factor_of_the_formula(
    small: Config, monkeypatch: pytest.MonkeyPatch, power: float, cap: float, accumulate: int
) -> None:
    """w = min(cap, (a / (e + floor))^power) with a of the updates before; the first update has no factor."""
    weight = OwnErrorWeight(cap=cap, floor=0.5, power=power, decay=0.75)
    config = replace(small, weight=weight, training=replace(small.training, accumulate=accumulate))
    data = config.data.open("train")
    facts = DataFacts.of(data)
    state, examples, (segment,) = State(config, facts, CPU), DataExamples(data, facts.codec), segments(config)
    gradients = kept_gradients(monkeypatch)
    a: Tensor | None = None
    for step in range(4):
        index = batch_indices(len(examples), 32, step, state.keys)
        draw = Draw(Keys(3), step, 32, slice(0, 32))
        targets = config.objective.targets(state.networks, examples.batch(index, draw), draw, segment.progress(step))
        query = targets.query
        error = state.network(query.x_t, query.t, query.d, query.condition, query.guidance) - targets.target
        e = error.square().flatten(1).mean(1)
        flow = targets.tag == 0
        w = torch.ones(32)
        if a is not None:
            w = torch.where(flow, w, ((a / (e.detach() + 0.5)) ** power).clamp(max=cap))
            assert 1.5 < float(w[~flow].max()) <= cap and (cap == 2 or len(w[~flow].unique()) > 1)
        (w * e).mean().backward()
        exact = torch.cat([p.grad.flatten() for p in state.network.parameters() if p.grad is not None])
        state.network.zero_grad(set_to_none=True)
        own = e[flow].detach().mean()
        a = own if a is None else 0.75 * a + 0.25 * own
        update.update(state, examples, segment)
        torch.testing.assert_close(gradients[-1], exact, rtol=1e-4, atol=1e-6)
        assert float(state.loss["weight"].get_buffer("error")) == pytest.approx(float(a), rel=1e-5)
        assert state.meter.record()["loss"] == pytest.approx(float(e.detach().mean()), rel=1e-5)  # without w
        state.meter.clear()


def test_micro_batches_have_the_same_weights(small: Config, tmp_path: Path) -> None:
    for n in (1, 2):
        config = replace(small, weight=OwnErrorWeight(), training=replace(small.training, accumulate=n))
        train(config, tmp_path / str(n))
    one, two = (last_group(tmp_path / name)["weight.error"] for name in ("1", "2"))
    assert float(one) == pytest.approx(float(two), rel=1e-4) and 0 < float(one) < 3
    losses = [[record["loss"] for record in records(tmp_path / name)] for name in ("1", "2")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("at", [1, 5, 7])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_is_the_same_bit_for_bit(
    small: Config, whole: Whole, tmp_path: Path, at: int, accumulate: int
) -> None:
    training = replace(small.training, images=32 * 11, accumulate=accumulate)
    weight = OwnErrorWeight(none_until=0.2, full_from=0.6)
    config = replace(small, weight=weight, penalty=Haar(), training=training)
    stop, watch = stopping(at + 1)
    assert train(config, tmp_path / "parts", watch=watch, stop=stop).step in {at, at + 1}
    train(config, tmp_path / "parts", resume=True)
    assert_same(whole(config), tmp_path / "parts")
    assert last_group(tmp_path / "parts").keys() == {"penalty.energy", "weight.error"}


def test_a_weight_rises_from_none_to_the_whole(tiny: Config, tmp_path: Path) -> None:
    assert [rise(f, 0.4, 0.7, "linear") for f in (0.0, 0.4, 0.55, 0.7, 0.9)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert [rise(f, 0.5, 0.5, "linear") for f in (0.49, 0.5)] == [0, 1]
    assert rise(0.0, 0.0, 0.0, "linear") == 1
    train(tiny, tmp_path / "none")
    for name, until in (("late", 1.0), ("early", 0.0)):
        train(replace(tiny, weight=OwnErrorWeight(none_until=until, full_from=1.0)), tmp_path / name)
    for path in (tmp_path / "late" / "checkpoints").glob("*/penalty.safetensors"):
        path.unlink()
    assert_same_tensors(tmp_path / "none", tmp_path / "late")
    assert records(tmp_path / "none")[0]["loss"] == records(tmp_path / "late")[0]["loss"]
    assert records(tmp_path / "none")[-1] != records(tmp_path / "early")[-1]


def test_half_a_rise_is_half_of_what_the_factor_adds() -> None:
    weight = OwnErrorWeight(floor=0.5, full_from=1.0)
    state = weight.start((2,), ("flow", "1"), ("1",), CPU)
    state.get_buffer("error").fill_(3.0)
    rows, raw, tag = torch.tensor([5.0, 7.0]), torch.tensor([0.5, 0.5]), torch.tensor([0, 1])
    charged = weight.rows(state, rows, raw, UNUSED, tag, PhaseProgress(1, 2))
    torch.testing.assert_close(charged, torch.tensor([5.0, 7.0 * (1 + 0.5 * 2.0)]))


def test_the_numerator_is_the_mean_of_flow_rows_or_of_all_where_an_update_has_none() -> None:
    weight = OwnErrorWeight(decay=0.5)
    state = weight.start((2,), ("flow", "guided", "1"), ("1",), CPU)
    for tags, mean in (([2, 1, 2], 3.0), ([0, 2, 0], 4.0)):
        raw = torch.tensor([2.0, 1.0, 6.0])
        sums = weight.statistics(state, raw, UNUSED, torch.tensor(tags))
        weight.observe(state, {name: value.double() for name, value in sums.items()})
        expected = mean if tags[0] else 0.5 * 3.0 + 0.5 * mean
        assert float(state.get_buffer("error")) == expected


def test_a_weight_acts_on_rows_that_regress_a_prediction() -> None:
    assert ImprovedShortcut(M=4).tags == ("flow", "guided", "1/2", "1")
    assert ImprovedShortcut(M=4).marked == Shortcut(M=4).marked == ("1/2", "1")
    for method in OBJECTIVES.values():
        assert set(method().marked) == set(method().tags) - {"flow", "guided"}


@pytest.mark.parametrize("kind", [kind for kind in WEIGHTS.values() if kind is not NoWeight])
def test_a_run_of_flow_rows_only_is_refused_with_a_weight(small: Config, kind: type[Weight]) -> None:
    network = replace(small.network, step_encoding="none")  # type: ignore[type-var]
    facts = DataFacts.of(small.data.open("train"))
    for config in (
        replace(small, objective=FlowMatching(), network=network),
        replace(small, objective=Shortcut(share=0)),
    ):
        with pytest.raises(UsageError, match=f"^weight {kind.name} is for examples whose target a network predicts"):
            replace(config, weight=kind()).check(facts.shape, facts.conditions)
        config.check(facts.shape, facts.conditions)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cap": 0.5}, "weight.cap must be at least 1 and finite, got 0.5"),
        ({"cap": math.inf}, "weight.cap must be at least 1 and finite, got inf"),
        ({"floor": 0.0}, "weight.floor must be greater than 0 and finite, got 0.0"),
        ({"power": 0.0}, r"weight.power must be in \(0, 2\], got 0.0"),
        ({"power": math.nan}, r"weight.power must be in \(0, 2\], got nan"),
        ({"none_until": -0.1}, r"weight.none_until must be in \[0, 1\], got -0.1"),
        ({"none_until": 0.5, "full_from": 0.4}, r"weight.full_from must be in \[0.5, 1\], got 0.4"),
        ({"decay": 1.0}, r"weight.decay must be in \[0, 1\), got 1.0"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        OwnErrorWeight(**fields)


@dataclass(frozen=True)
class Learned(Weight):
    """Each kind of row has a learned u: exp(-u) e + u, whose minimum over u is log e + 1."""

    name: ClassVar[str] = "learned_here"

    def start(
        self, shape: tuple[int, ...], tags: Sequence[str], marked: Sequence[str], device: torch.device
    ) -> nn.Module:
        state = nn.Module()
        state.u = nn.Parameter(torch.zeros(len(tags), device=device))
        return state

    def rows(
        self, state: nn.Module, rows: Tensor, raw: Tensor, query: Query, tag: Tensor, progress: PhaseProgress
    ) -> Tensor:
        u = state.get_parameter("u")[tag]
        return torch.exp(-u) * rows + u


@pytest.fixture
def learning(small: Config, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setitem(WEIGHTS, "learned_here", Learned)
    optimizer = replace(small.optimizer, lr=1e-2, clip_norm=1e-3, weight_decay=10.0)
    return replace(small, weight=Learned(), optimizer=optimizer)


def test_a_learned_weight_trains_without_decay_and_outside_the_clipped_norm(
    learning: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clipped: list[set[Any]] = []
    clip = update.clip_grads_with_norm_

    def seen(parameters: Any, *rest: Any) -> None:
        parameters = list(parameters)
        clipped.append({parameter.shape for parameter in parameters})
        clip(parameters, *rest)

    monkeypatch.setattr(update, "clip_grads_with_norm_", seen)
    train(learning, tmp_path / "run")
    group = last_group(tmp_path / "run")
    assert group.keys() == {"weight.u", "weight.u|step", "weight.u|exp_avg", "weight.u|exp_avg_sq"}
    u, rows = group["weight.u"], records(tmp_path / "run")[-1]["loss_by_level"]
    assert float(group["weight.u|step"]) == 24
    assert torch.Size([8]) == u.shape and torch.Size([8]) not in clipped[0]
    for value, error in zip(u.tolist(), rows.values(), strict=True):
        assert (value > 0) == (math.log(error) > 0)  # on its way to log e
    state = State(learning, DataFacts.of(learning.data.open("train")), CPU)
    assert [group["weight_decay"] for group in state.optimizer.param_groups] == [10.0, 0.0]
    assert [len(group["params"]) for group in state.optimizer.param_groups][1] == 1


@pytest.mark.parametrize("at", [1, 5, 7])
def test_a_learned_weight_resumes_bit_for_bit(learning: Config, tmp_path: Path, at: int) -> None:
    config = replace(learning, training=replace(learning.training, images=32 * 11, accumulate=2))
    train(config, tmp_path / "whole")
    stop, watch = stopping(at + 1)
    train(config, tmp_path / "parts", watch=watch, stop=stop)
    train(config, tmp_path / "parts", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_an_update_that_is_skipped_leaves_statistics_and_what_is_learned(
    learning: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient of the learned part that is not finite skips the update, as one of the network does."""

    @dataclass(frozen=True)
    class Broken(Learned):
        def rows(self, state: nn.Module, rows: Tensor, *rest: Any) -> Tensor:
            u = state.get_parameter("u")
            return super().rows(state, rows, *rest) + (u - u.detach()).sqrt().sum()  # a value of 0, no finite gradient

    monkeypatch.setitem(WEIGHTS, "learned_here", Broken)
    config = replace(learning, weight=Broken(), training=replace(learning.training, images=64))
    train(config, tmp_path / "run")
    assert records(tmp_path / "run")[-1]["skipped"] == 2
    assert not last_group(tmp_path / "run")["weight.u"].any()
