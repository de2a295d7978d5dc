"""Each weight: its formula, what it learns, interruption, micro-batches, bad input; every method with every weight."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.same import assert_same, stopping
from tests.training.test_weight import last_group, records
from torch import Tensor, nn

from anystep.core.errors import RunError, UsageError
from anystep.flow.penalties import (
    WEIGHTS,
    ConstantWeight,
    LearnedWeight,
    LevelAverageWeight,
    OwnErrorWeight,
    PseudoHuber,
    RisingWeight,
    Weight,
)
from anystep.flow.query import PhaseProgress, Query
from anystep.flow.rise import Shape, rise
from anystep.objectives import OBJECTIVES, FlowMatching, Shortcut
from anystep.recipes import find_recipe
from anystep.recipes.method import with_method
from anystep.run.config import Config, PreviewConfig, to_json
from anystep.training.notes import length_note
from anystep.training.trainer import train

from .conftest import Whole

CPU = torch.device("cpu")
TAGS = ("flow", "guided", "1/2", "1")
MARKED = ("1/2", "1")
ALL: list[RisingWeight] = [
    OwnErrorWeight(),
    LevelAverageWeight(),
    LearnedWeight(),
    LearnedWeight(form="learned_floor"),
    ConstantWeight(),
]
IDS = [f"{weight.name}_{getattr(weight, 'form', '')}" for weight in ALL]


def observed(weight: Weight, state: nn.Module, raw: list[float], tag: list[int]) -> None:
    sums = weight.statistics(state, torch.tensor(raw), query(len(raw)), torch.tensor(tag))
    weight.observe(state, {name: value.double() for name, value in sums.items()})


def query(num: int, t: float = 0.25, d: float = 0.5) -> Query:
    return Query(torch.zeros(num, 2), torch.full((num,), t), torch.full((num,), d))


def charged(weight: Weight, state: nn.Module, raw: list[float], tag: list[int], fraction: float = 1.0) -> Tensor:
    """Weights of examples with these errors: what penalties of 1 become."""
    progress = PhaseProgress(round(100 * fraction), 100)
    kinds, errors = torch.tensor(tag), torch.tensor(raw)
    return weight.rows(state, torch.ones(len(raw)), errors, query(len(raw)), kinds, progress)


def test_a_level_average_weighs_by_the_mean_of_the_level() -> None:
    weight = LevelAverageWeight(floor=0.5, cap=6.0, decay=0.75)
    state = weight.start((2,), TAGS, MARKED, CPU)
    assert charged(weight, state, [9.0, 0.1, 0.1], [0, 2, 3]).tolist() == [1, 1, 1]
    observed(weight, state, [3.0, 5.0, 0.2, 0.4], [0, 0, 2, 2])
    assert state.get_buffer("level_error").dtype == torch.float64
    w = charged(weight, state, [9.0, 9.0, 0.1, 7.0, 0.1], [0, 1, 2, 2, 3])
    torch.testing.assert_close(w, torch.tensor([1, 1, 4 / (0.3 + 0.5), 4 / (0.3 + 0.5), 1.0]))  # d = 1 not observed
    observed(weight, state, [8.0, 0.1], [0, 3])
    w = charged(weight, state, [9.0, 1.0, 1.0], [0, 2, 3])
    torch.testing.assert_close(w, torch.tensor([1, 6.0, 6.0]))  # 5 / .8 and 5 / .6, at most 6
    power = LevelAverageWeight(floor=0.5, power=0.5)
    torch.testing.assert_close(charged(power, state, [1.0], [2]), torch.tensor([math.sqrt(5 / 0.8)]))
    assert charged(weight, state, [1.0], [3], 0.0).tolist() == [6]
    late = replace(weight, none_until=0.5, full_from=1.0)
    torch.testing.assert_close(charged(late, state, [1.0], [3], 0.75), torch.tensor([3.5]))


def test_a_constant_weight_has_a_factor_for_all_levels_or_one_for_each() -> None:
    for factors, expected in (((3.0,), [1, 1, 3, 3]), ((3.0, 0.5), [1, 1, 3, 0.5])):
        weight = ConstantWeight(factors=factors, none_until=0.2, full_from=0.6)
        state = weight.start((2,), TAGS, MARKED, CPU)
        assert charged(weight, state, [1.0] * 4, [0, 1, 2, 3]).tolist() == expected
        assert charged(weight, state, [1.0] * 4, [0, 1, 2, 3], 0.2).tolist() == [1] * 4
        half = [(1 + w) / 2 for w in expected]
        torch.testing.assert_close(charged(weight, state, [1.0] * 4, [0, 1, 2, 3], 0.4), torch.tensor(half))
        assert not state.state_dict()


@pytest.mark.parametrize(
    ("fraction", "linear", "cosine", "step"),
    [
        (0.4, 0, 0, 0),
        (0.5, 0.25, (1 - math.sqrt(0.5)) / 2, 0),
        (0.61, 0.525, (1 - math.cos(0.525 * math.pi)) / 2, 1),
        (0.8, 1, 1, 1),
    ],
)
def test_shapes_of_the_rise(fraction: float, linear: float, cosine: float, step: float) -> None:
    shapes: tuple[Shape, ...] = ("linear", "cosine", "step")
    found = [rise(fraction, 0.4, 0.8, shape) for shape in shapes]
    assert found == pytest.approx([linear, cosine, step], abs=1e-5)


def fitted(weight: LearnedWeight, means: Tensor, updates: int = 1500) -> tuple[nn.Module, Query, Tensor]:
    """The state after fits to errors of these means at d = 1/4, 1/2, 1 (exponential); queries at each d, t = 0.25."""
    random = torch.Generator().manual_seed(0)
    state = weight.start((2,), ("flow", "1/4", "1/2", "1"), ("1/4", "1/2", "1"), CPU)
    state.get_buffer("error").fill_(0.5)
    optimizer = torch.optim.AdamW(state.parameters(), lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, updates)
    kinds = torch.arange(3).repeat(64)
    for _ in range(updates):
        raw = means[kinds] * -torch.rand(len(kinds), generator=random).log()
        where = Query(torch.zeros(len(kinds), 2), torch.rand(len(kinds), generator=random), 0.25 * 2.0**kinds)
        optimizer.zero_grad()
        weight.rows(state, torch.zeros(len(kinds)), raw, where, kinds + 1, PhaseProgress(0, 1)).sum().backward()
        optimizer.step()
        schedule.step()
    return state, Query(torch.zeros(3, 2), torch.full((3,), 0.25), torch.tensor([0.25, 0.5, 1.0])), torch.arange(1, 4)


def test_what_is_learned_is_the_logarithm_of_the_mean_error() -> None:
    means = torch.tensor([0.02, 0.1, 0.05])
    weight = LearnedWeight(cap=100.0)
    state, where, tag = fitted(weight, means)
    u = math.log(0.5) + weight.relative(state, where)
    torch.testing.assert_close(u, means.log(), rtol=0, atol=0.1)
    w = weight.factor(state, torch.ones(3), where, tag, PhaseProgress(0, 1))
    torch.testing.assert_close(w, 0.5 / means, rtol=0.1, atol=0)
    torch.testing.assert_close(
        replace(weight, cap=7.0).factor(state, w, where, tag, PhaseProgress(0, 1)).max(), torch.tensor(7.0)
    )


def test_a_learned_floor_is_where_the_mean_of_e_over_e_plus_s_is_a_half() -> None:
    means = torch.tensor([0.02, 0.1, 0.05])
    weight = LearnedWeight(form="learned_floor", c=0.1, cap=100.0)
    state, where, tag = fitted(weight, means)
    s = 0.5 * weight.relative(state, where).exp()
    e = -torch.rand(100_000, generator=torch.Generator().manual_seed(1)).log()[:, None] * means
    torch.testing.assert_close((e / (e + s)).mean(0), torch.full((3,), 0.5), rtol=0, atol=0.03)
    raw = torch.tensor([0.0, 0.01, 0.2])
    w = weight.factor(state, raw, where, tag, PhaseProgress(0, 1))
    torch.testing.assert_close(w, (0.5 / (raw + 0.1 * s)).clamp(max=100))


def test_a_learned_weight_starts_at_1_and_its_fit_leaves_the_network_alone() -> None:
    weight = LearnedWeight()
    state = weight.start((2,), TAGS, MARKED, CPU)
    rows = torch.tensor([2.0, 2.0, 2.0], requires_grad=True)
    raw, tag, where = torch.tensor([2.0, 0.1, 0.0]), torch.tensor([0, 2, 3]), query(3)
    assert weight.rows(state, rows, raw, where, tag, PhaseProgress(0, 1)).tolist() == [2, 2, 2]  # nothing observed
    state.get_buffer("error").fill_(1.0)
    weight.rows(state, rows, raw, where, tag, PhaseProgress(0, 1)).sum().backward()
    assert rows.grad is not None and rows.grad.tolist() == [1, 1, 1]
    f = state.get_parameter("f")
    assert f.grad is not None and float(f.grad[2, 1]) == pytest.approx(16 * (0.9 + 1))  # 1 - e/a of the marked two
    with torch.autocast("cpu", torch.bfloat16):
        assert weight.relative(state, where).dtype == torch.float32


@pytest.mark.parametrize("weight", ALL, ids=IDS)
@pytest.mark.parametrize("at", [1, 7])
def test_an_interruption_changes_nothing(
    small: Config, whole: Whole, tmp_path: Path, weight: RisingWeight, at: int
) -> None:
    training = replace(small.training, images=32 * 11, accumulate=2)
    config = replace(small, weight=replace(weight, none_until=0.2, full_from=0.6), training=training)
    stop, watch = stopping(at + 1)
    train(config, tmp_path / "parts", watch=watch, stop=stop)
    train(config, tmp_path / "parts", resume=True)
    assert_same(whole(config), tmp_path / "parts")


@pytest.mark.parametrize("weight", ALL, ids=IDS)
def test_micro_batches_change_rounding_only(tiny: Config, tmp_path: Path, weight: RisingWeight) -> None:
    for n in (1, 2):
        train(replace(tiny, weight=weight, training=replace(tiny.training, accumulate=n)), tmp_path / str(n))
    one, two = (records(tmp_path / name)[-1] for name in ("1", "2"))
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-3) and one["grad_norm"] == pytest.approx(
        two["grad_norm"], rel=1e-2
    )
    if weight.name != "constant":
        groups = [last_group(tmp_path / name) for name in ("1", "2")]
        torch.testing.assert_close(groups[0]["weight.error"], groups[1]["weight.error"], rtol=1e-4, atol=0)


def test_the_log_has_the_weight_and_the_error_that_no_penalty_or_weight_changes(small: Config, tmp_path: Path) -> None:
    weight = ConstantWeight(factors=(3.0,), full_from=1.0)
    for name, penalty in (("own", small.penalty), ("huber", PseudoHuber(c=0.1))):
        train(replace(small, weight=weight, penalty=penalty), tmp_path / name)
        for before, record in pairwise([{"step": 0}, *records(tmp_path / name)]):
            rise = sum(range(before["step"], record["step"])) / (record["step"] - before["step"]) / 24
            levels = record["weight_by_level"]
            assert levels.pop("flow") == 1
            assert list(levels.values()) == pytest.approx([1 + 2 * rise] * 7)
            assert record["error_by_level"].keys() == record["loss_by_level"].keys()
            same = record["error_by_level"] == pytest.approx(record["loss_by_level"], rel=1e-6)
            assert same == (name == "own")
    train(replace(small, training=replace(small.training, images=64)), tmp_path / "none")
    assert not {"weight_by_level", "error_by_level"} & records(tmp_path / "none")[-1].keys()


WEIGHED = [name for name, method in OBJECTIVES.items() if method().marked and method.per_row]


@pytest.mark.parametrize("weight", ALL, ids=IDS)
@pytest.mark.parametrize("method", WEIGHED)
def test_every_method_with_such_rows_trains_with_every_weight(
    tmp_path: Path, method: str, weight: RisingWeight
) -> None:
    config = with_method(find_recipe("eight_gaussians-shortcut"), method)
    few: dict[str, Any] = {"M": 8} if "M" in to_json(config)["objective"] else {}
    network, objective = config.network.with_inputs(hidden=8, depth=1), replace(config.objective, **few)
    config = replace(config, network=network, objective=objective, weight=weight)
    phases = len(config.objective.phases())
    training = replace(config.training, images=2 * phases * 64, batch=64, device="cpu", precision="float32")
    config = replace(config, training=training, preview=PreviewConfig(num=0))
    train(config, tmp_path / "run")
    last = records(tmp_path / "run")[-1]
    assert last["step"] == 2 * phases and last["skipped"] == 0 and math.isfinite(last["loss"])


def test_a_method_without_such_rows_is_compared_without_a_weight(small: Config) -> None:
    config = replace(small, weight=LearnedWeight())
    assert with_method(config, "live_reflow").weight == LearnedWeight()
    assert with_method(config, FlowMatching()).weight.name == "none"


def test_a_longer_run_continues_on_the_schedule_of_its_new_length(small: Config, tmp_path: Path) -> None:
    weight, said = ConstantWeight(factors=(2.0,), full_from=1.0), list[str]()
    half = replace(small.training, images=32 * 12)
    config = replace(small, weight=weight, optimizer=replace(small.optimizer, decay=0.0))
    train(replace(config, training=half), tmp_path / "run", say=said.append)
    assert not said
    train(config, tmp_path / "run", resume=True, say=said.append)
    assert said == [
        "training.images is 768, and was 384: weight.full_from is a fraction of it, and the run continues on the "
        "schedule of the new length"
    ]
    (both,) = length_note(replace(small, training=half), replace(small, weight=OwnErrorWeight(full_from=0.5)))
    assert "optimizer.decay, weight.full_from are fractions of it" in both
    rising = replace(small, objective=Shortcut(share_start=0.0, share_change=(0.2, 0.6)), optimizer=config.optimizer)
    (one,) = length_note(replace(rising, training=half), rising)
    assert "objective.share_change is a fraction of it" in one
    assert not list(length_note(config, config))


@pytest.mark.parametrize(
    ("weight", "fields", "message"),
    [
        (ConstantWeight, {"factors": (-1.0,)}, r"weight.factors must be at least 0 and finite, got -1.0"),
        (ConstantWeight, {"shape": "square"}, "weight.shape must be one of linear, cosine, step, got 'square'"),
        (ConstantWeight, {"none_until": 0.6, "full_from": 0.5}, r"weight.full_from must be in \[0.6, 1\], got 0.5"),
        (LevelAverageWeight, {"cap": 0.5}, "weight.cap must be at least 1 and finite, got 0.5"),
        (LearnedWeight, {"cap": math.nan}, "weight.cap must be at least 1 and finite, got nan"),
        (LearnedWeight, {"form": "learned_floor", "c": 0.0}, "weight.c must be greater than 0 and finite, got 0.0"),
        (LearnedWeight, {"c": 0.1}, "weight.c has no effect without weight.form learned_floor: set both, or neither"),
        (LearnedWeight, {"none_until": 0.5}, r"weight.full_from must be in \[0.5, 1\], got 0.0"),
    ],
)
def test_options_that_cannot_be(weight: type[Weight], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}$"):
        weight(**fields)


def test_factors_are_one_or_one_per_level(small: Config) -> None:
    message = "^weight.factors must be 1 or 7, for 1/64, 1/32, 1/16, 1/8, 1/4, 1/2, 1, got 2$"
    with pytest.raises(UsageError, match=message):
        replace(small, weight=ConstantWeight(factors=(1.0, 2.0))).check((1, 8, 8), small.data.open("train").conditions)


@pytest.mark.parametrize("weight", [LevelAverageWeight(), LearnedWeight()])
def test_statistics_that_a_checkpoint_lacks_are_named(small: Config, tmp_path: Path, weight: Weight) -> None:
    config = replace(small, weight=weight, training=replace(small.training, images=64))
    train(config, tmp_path / "run")
    (file,) = (tmp_path / "run" / "checkpoints").glob("*/penalty.safetensors")
    state = file.with_name("state.json")
    state.write_text(state.read_text().replace(', "penalty"', ""))
    with pytest.raises(
        RunError, match=r'^checkpoint .*step-0+2 does not fit .*: Missing key.* "weight\.error"'
    ) as error:
        train(replace(config, training=small.training), tmp_path / "run", resume=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [name for name in WEIGHTS if name != "none"])
def test_a_weight_that_moment_matching_cannot_have(name: str) -> None:
    with pytest.raises(UsageError, match=f"^weight {name} acts on the error of each example"):
        replace(find_recipe("digits-imm"), weight=WEIGHTS[name]())
