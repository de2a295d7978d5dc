"""Coupling in training: only noise is permuted, at the least cost, and an interruption changes nothing."""

import json
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from tests.toys import feature_vector
from tests.training.same import assert_same, assert_same_tensors, stopping
from torch import Tensor

from anystep.codecs import Pixels
from anystep.core.errors import DataError, RunError
from anystep.core.random import Keys
from anystep.data import Dataset, Digits, batch_indices
from anystep.flow.condition import class_labels
from anystep.flow.coupling import CouplingConfig
from anystep.objectives import (
    Batch,
    Draw,
    FlowMatching,
    ImprovedShortcut,
    Objective,
    ProgressiveDistillation,
    Reflow,
    Shortcut,
)
from anystep.recipes import find_recipe
from anystep.recipes.method import network_for
from anystep.run.config import Config, from_json, to_json
from anystep.run.facts import DataFacts
from anystep.training import coupling
from anystep.training.coupling import CoupledExamples, coupled_noise
from anystep.training.examples import DataExamples
from anystep.training.notes import notes
from anystep.training.trainer import train

from .conftest import Whole

SEED, BATCH, K = 3, 32, 4


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return Digits().open("train")


def rows(dataset: Dataset, flip: bool = False) -> DataExamples:
    return DataExamples(dataset, Pixels(mirror=flip).fit(dataset))


def batches(examples: DataExamples | CoupledExamples, steps: range, parts: int = 1) -> list[Batch]:
    """Every micro-batch of these updates, as the trainer asks for them."""
    made = []
    for step in steps:
        index = batch_indices(len(examples), BATCH, step, Keys(SEED))
        for first in range(0, BATCH, BATCH // parts):
            draw = Draw(Keys(SEED), step, BATCH, slice(first, first + BATCH // parts))
            made.append(examples.batch(index, draw))
    return made


def joined(made: list[Batch]) -> tuple[Tensor, Tensor, Tensor]:
    """x1, x0 (rows flat), labels of batches end to end."""
    labels = [part.condition for part in made if part.condition is not None]
    x1, x0 = (torch.cat([getattr(part, name) for part in made]).flatten(1) for name in ("x1", "x0"))
    return x1, x0, torch.cat(labels)


def coupled(dataset: Dataset, config: CouplingConfig, flip: bool = False, last: int = 3 * K) -> CoupledExamples:
    return CoupledExamples(rows(dataset, flip), config, keys=Keys(SEED), batch=BATCH, last=last)


def sources(noise: Tensor, drawn: Tensor) -> Tensor:
    """The row of ``drawn`` that each row of ``noise`` is, exactly."""
    same = (noise[:, None] == drawn).all(2)
    assert bool((same.sum(1) == 1).all())
    return same.int().argmax(1)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("window", [0, 2])
def test_a_windows_noise_is_permuted_at_the_least_cost_and_nothing_else_changes(
    digits: Dataset, window: int, flip: bool
) -> None:
    steps = range(window * K, window * K + K)
    x1, drawn, label = joined(batches(rows(digits, flip), steps))
    y1, noise, other = joined(batches(coupled(digits, CouplingConfig(K), flip), steps))
    assert torch.equal(x1, y1) and torch.equal(label, other)
    assert sources(noise, drawn).sort().values.tolist() == list(range(K * BATCH))
    cost = np.square(x1.double().numpy()[:, None] - drawn.double().numpy()).sum(2)
    least = cost[linear_sum_assignment(cost)].sum()
    assert float((x1.double() - noise.double()).square().sum()) == pytest.approx(least, rel=1e-12)
    assert least < 0.95 * np.trace(cost)


def test_classes_are_crossed_freely_or_at_a_price_or_never(digits: Dataset) -> None:
    """Without a price about 9 in 10 rows of ten classes take another's noise; the price is in |x0 - x1|^2's unit."""
    steps = range(K)
    x1, drawn, label = joined(batches(rows(digits), steps))
    crossed, paid = {}, {}
    for name, config in {
        "free": CouplingConfig(K),
        "20": CouplingConfig(K, class_cost=20.0),
        "1e6": CouplingConfig(K, class_cost=1e6),
        "never": CouplingConfig(K, per_class=True),
    }.items():
        _, noise, _ = joined(batches(coupled(digits, config), steps))
        crossed[name] = int((label[sources(noise, drawn)] != label).sum())
        paid[name] = float((x1.double() - noise).square().sum())
    assert crossed["free"] > 0.8 * len(label)
    assert 0 < crossed["20"] < crossed["free"]
    assert crossed["1e6"] == crossed["never"] == 0
    assert paid["1e6"] == pytest.approx(paid["never"], rel=1e-12)
    # the optimum with a price is at least as good, price included, as each of the plans without one
    priced = {name: paid[name] + 20 * crossed[name] for name in paid}
    assert priced["20"] <= min(priced.values()) + 1e-6


def test_the_thread_finds_what_the_main_thread_finds_in_any_parts_and_from_any_update(digits: Dataset) -> None:
    config, seen = CouplingConfig(K), []
    main = torch.cat([coupled_noise(rows(digits), config, Keys(SEED), BATCH, window) for window in range(3)]).flatten(
        0, 1
    )
    examples = coupled(digits, config)
    solve = examples._noise
    examples._noise = lambda window: seen.append((window, threading.current_thread().name)) or solve(window)  # type: ignore[func-returns-value]
    _, noise, _ = joined(batches(examples, range(3 * K), parts=4))
    assert torch.equal(noise, main.flatten(1))
    assert seen == [(window, "coupling_0") for window in range(3)]  # each once, none after the last
    for start in (1, K - 1, K + 2):
        _, noise, _ = joined(batches(coupled(digits, config), range(start, 3 * K)))
        assert torch.equal(noise, main.flatten(1)[start * BATCH :])


def test_autocast_and_the_precision_of_products_do_not_reach_the_plan(digits: Dataset) -> None:
    plain = coupled_noise(rows(digits), CouplingConfig(K), Keys(SEED), BATCH, 0)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(coupled_noise(rows(digits), CouplingConfig(K), Keys(SEED), BATCH, 0), plain)
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("objective", [Shortcut(M=16), ImprovedShortcut(M=16), FlowMatching()], ids=lambda o: o.name)
@pytest.mark.parametrize("at", [1, 5, 8, 13])
def test_a_run_stopped_within_a_window_is_the_same(
    small: Config, whole: Whole, tmp_path: Path, objective: Objective, at: int
) -> None:
    """Windows of 7 updates in a run of 16: none ends with a checkpoint, and the last would go on to update 20."""
    config = replace(
        small,
        objective=objective,
        network=network_for(small, objective),
        coupling=CouplingConfig(7, class_cost=10.0),
        training=replace(small.training, images=32 * 16),
    )
    stop, watch = stopping(at + 1)
    assert train(config, tmp_path / "parts", watch=watch, stop=stop).stopped is signal.SIGTERM
    train(config, tmp_path / "parts", resume=True)
    assert_same(whole(config), tmp_path / "parts")


def test_a_run_that_ends_within_a_window_and_is_made_longer_is_the_longer_run(small: Config, tmp_path: Path) -> None:
    constant = replace(small, optimizer=replace(small.optimizer, decay=0.0), coupling=CouplingConfig(7))
    half = replace(constant, training=replace(constant.training, images=32 * 10))
    train(constant, tmp_path / "whole")
    train(half, tmp_path / "parts")
    train(constant, tmp_path / "parts", resume=True)
    assert_same_tensors(tmp_path / "whole", tmp_path / "parts")


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[Tensor]]:
    """The noise of each update of the runs that follow, whatever they trained on."""
    seen: dict[int, list[Tensor]] = {}
    for kind in (DataExamples, CoupledExamples):
        make = kind.batch

        def spy(self: Any, index: Any, draw: Draw, make: Any = make) -> Batch:
            batch: Batch = make(self, index, draw)
            if threading.current_thread() is threading.main_thread():
                seen.setdefault(draw.step, []).append(batch.x0)
            return batch

        monkeypatch.setattr(kind, "batch", spy)
    return seen


@pytest.mark.parametrize(
    ("objective", "updates"),
    [(ProgressiveDistillation(M=4, teacher_share=0.5), 24), (Reflow(pairs=70, pair_steps=2), 12)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_windows_cross_phases_and_pairs_are_left_alone(
    small: Config, tmp_path: Path, given: dict[int, list[Tensor]], objective: Objective, updates: int
) -> None:
    """Phases begin at updates 12 and 18, windows at 8 and 16; reflow's second phase, of pairs, asks for none."""
    config = replace(small, objective=objective, network=network_for(small, objective), coupling=CouplingConfig(8))
    said: list[str] = []
    train(config, tmp_path / "run", say=said.append)
    assert sum("pairs keep the noise" in line for line in said) == (updates == 12)
    trained = {step: noise[-1] for step, noise in given.items()}  # the last: a coupled batch asks the plain one first
    assert sorted(trained) == list(range(updates))
    dataset = config.data.open("train")
    windows = [
        coupled_noise(rows(dataset), config.coupling, Keys(config.training.seed), 32, window) for window in range(3)
    ]
    assert all(torch.equal(noise, windows[step // 8][step % 8]) for step, noise in trained.items())


def test_what_fails_in_the_thread_is_one_line_of_the_run(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(tiny, coupling=CouplingConfig(2))

    def broken(cost: Tensor) -> Tensor:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("can't allocate memory:\nmore of it")
        return cost

    monkeypatch.setattr(coupling, "solve", broken)
    with pytest.raises(RunError, match=r"^stopped: no coupling for updates 0 to 1: can't allocate memory:; ") as caught:
        train(config, tmp_path / "run")
    assert "\n" not in str(caught.value)

    def unreadable(self: Dataset, index: object) -> None:
        raise DataError("photo.png: gone")

    examples = coupled(config.data.open("train"), config.coupling)
    index = np.arange(BATCH)
    monkeypatch.setattr(Dataset, "read", unreadable)
    with pytest.raises(DataError, match=r"^photo\.png: gone$"):
        examples.batch(index, Draw(Keys(SEED), 0, BATCH, slice(0, BATCH)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batches": -1}, "coupling.batches must be at least 0, got -1"),
        ({"batches": 2, "class_cost": -1.0}, "coupling.class_cost must be at least 0 and finite, got -1.0"),
        ({"batches": 2, "class_cost": float("inf")}, "coupling.class_cost must be at least 0 and finite, got inf"),
        ({"batches": 2, "class_cost": 1.0, "per_class": True}, "coupling.per_class is an infinite coupling.class_cost"),
        ({"class_cost": 1.0}, "coupling.class_cost has no effect without coupling.batches"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        CouplingConfig(**values)


def test_no_batches_turn_a_recipes_transport_off() -> None:
    config = find_recipe("digits-shortcut")
    assert config.coupling.per_class
    off = replace(config.coupling, batches=0)
    assert not off.exchanges(config.data.open("train").conditions)


def test_a_cost_of_classes_is_refused_where_there_are_none(tmp_path: Path) -> None:
    config = replace(find_recipe("two_moons-flow_matching"), coupling=CouplingConfig(2, class_cost=1.0))
    with pytest.raises(ValueError, match=r"coupling\.class_cost needs labels, and this data has none"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_without_labels_is_one_class() -> None:
    dataset = find_recipe("two_moons-flow_matching").data.open("train")
    assert dataset.num_classes is None
    data = DataExamples(dataset, DataFacts.of(dataset).codec)
    by_class, plain = (
        coupled_noise(data, CouplingConfig(2, per_class=each), Keys(0), batch=64, window=1) for each in (True, False)
    )
    assert torch.equal(by_class, plain)
    assert CouplingConfig(2, per_class=True).exchanges(dataset.conditions)


def test_features_without_a_label_keep_their_noise() -> None:
    """Transport would tell from the feature which noise to expect, and sampling draws noise independently of it."""
    assert not CouplingConfig(2, per_class=True).exchanges(feature_vector(3))
    assert CouplingConfig(2).exchanges(feature_vector(3))
    assert not CouplingConfig().exchanges(class_labels(3))


def test_the_section_is_kept_and_an_older_config_has_none(tiny: Config, tmp_path: Path) -> None:
    config = replace(tiny, coupling=CouplingConfig(32, class_cost=5.0))
    values = json.loads(json.dumps(to_json(config), allow_nan=False))
    assert values["coupling"] == {"batches": 32, "class_cost": 5.0, "per_class": False}
    assert from_json(values) == config
    del values["coupling"]
    assert from_json(values).coupling == CouplingConfig() == tiny.coupling


def test_a_large_pool_is_said(small: Config) -> None:
    large = replace(small, coupling=CouplingConfig(65))
    assert [line.split(" pooled")[0] for line in notes(large)] == ["coupling: 2,080"]
    assert list(notes(replace(small, coupling=CouplingConfig(64)))) == []
    by_class = replace(small, coupling=CouplingConfig(65, per_class=True))
    assert list(notes(by_class, 10)) == [] and list(notes(by_class)) == list(notes(large))


def test_it_is_said_that_classes_are_ignored() -> None:
    """Only where there are some."""
    config = find_recipe("digits-shortcut")
    by = (CouplingConfig(2), CouplingConfig(2, class_cost=1.0), CouplingConfig(2, per_class=True))
    blind, *others = (replace(config, coupling=coupling) for coupling in by)
    assert [line.split(":")[0] for line in notes(blind, 10)] == ["coupling ignores classes"]
    assert [line for other in others for line in notes(other, 10)] == []
    assert list(notes(blind)) == [] and list(notes(config, 10)) == []
