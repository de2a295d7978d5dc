"""A penalty on Haar bands in training: its weights, its gradient, exact resumption, and what it refuses."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pywt
import torch
from tests.training.same import assert_same, kept_gradients, stopping
from torch import Tensor

from anystep.core.errors import UsageError
from anystep.core.random import Keys
from anystep.data import batch_indices
from anystep.flow.condition import UNCONDITIONAL
from anystep.flow.penalties import Haar, Own, Penalty
from anystep.flow.penalties.haar import ENERGY_FLOOR, band_error, band_shares
from anystep.objectives import (
    OBJECTIVES,
    Batch,
    Draw,
    Losses,
    Networks,
    PhaseProgress,
    Reflow,
    Shortcut,
    Targets,
)
from anystep.recipes import find_recipe
from anystep.run.config import Config, from_json, to_json
from anystep.run.facts import DataFacts
from anystep.run.plan import segments
from anystep.training import trainer, update
from anystep.training.state import State
from anystep.training.trainer import train
from anystep.training.update import UpdateCharge

from .conftest import Whole

WHITENED = Haar()
SHAPE = (1, 8, 8)


def made(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def energies(x: Tensor) -> Tensor:
    """Mean square of each band over three levels, coarse to fine, by PyWavelets."""
    low, *details = pywt.wavedec2(x.double().numpy(), "haar", level=3, axes=(-2, -1))
    bands = [low, *(band for level in details for band in level)]
    return torch.tensor([float((band**2).mean()) for band in bands], dtype=torch.float64)


def weights_of(energy: Tensor) -> Tensor:
    """1 / energy, with mean 1 over the elements of a row: 1 + 3 (1 + 4 + 16) = 64 of them."""
    share = torch.tensor([1.0, *[1.0] * 3, *[4.0] * 3, *[16.0] * 3], dtype=torch.float64) / 64
    inverse = 1 / energy.clamp(min=ENERGY_FLOOR * float((share * energy).sum()))
    return inverse / float((share * inverse).sum())


class Watched:
    """What each update of a run was made of: its targets, its predictions, the gradient, the weights of its bands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, config: Config, out: Path) -> None:
        self.targets: list[list[Tensor]] = []
        self.weights: list[Tensor] = []
        self.energy: list[Tensor] = []
        call, observe = UpdateCharge.__call__, UpdateCharge.observe
        seen: list[tuple[UpdateCharge, Tensor]] = []

        def watched_call(charge: UpdateCharge, prediction: Tensor, targets: Targets) -> Losses:
            seen.append((charge, targets.target))
            return call(charge, prediction, targets)

        def watched_observe(charge: UpdateCharge) -> None:
            assert isinstance(charge.penalty, Haar)
            self.weights.append(charge.penalty.band_weights(charge.loss["penalty"], SHAPE))
            observe(charge)
            self.energy.append(charge.loss["penalty"].get_buffer("energy").clone())
            self.targets.append([target for its, target in seen if its is charge])

        monkeypatch.setattr(UpdateCharge, "__call__", watched_call)
        monkeypatch.setattr(UpdateCharge, "observe", watched_observe)
        train(config, out)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_an_update_weighs_by_the_energies_of_those_before_it(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    """The first counts every band 1; transcribed with PyWavelets, whatever the micro-batches."""
    training = replace(tiny.training, accumulate=accumulate)
    seen = Watched(
        monkeypatch, replace(tiny, penalty=replace(WHITENED, decay=0.75), training=training), tmp_path / "run"
    )
    average: Tensor | None = None
    for targets, weights, energy in zip(seen.targets, seen.weights, seen.energy, strict=True):
        assert len(targets) == accumulate
        own = energies(torch.cat(targets))
        if average is None:
            assert weights.tolist() == [1.0] * 10
        else:
            torch.testing.assert_close(weights.double(), weights_of(average), rtol=1e-5, atol=0)
        average = own if average is None else 0.75 * average + 0.25 * own
        torch.testing.assert_close(energy, average, rtol=1e-5, atol=0)
    assert len(seen.weights) == 6


def test_accumulation_changes_rounding_only(tiny: Config, tmp_path: Path) -> None:
    logs = []
    for n in (1, 4):
        config = replace(tiny, penalty=WHITENED, training=replace(tiny.training, accumulate=n))
        train(config, tmp_path / str(n))
        logs.append([json.loads(line)["loss"] for line in (tmp_path / str(n) / "log.jsonl").read_text().splitlines()])
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)


def test_the_gradient_and_the_logged_loss_of_an_update_are_those_of_the_formula(
    small: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sum_b w_b |W_b (s - target)|^2 / 64, with PyWavelets' weights and a matrix W of its transform."""
    gradients = kept_gradients(monkeypatch)
    config = replace(small, penalty=WHITENED)
    facts = DataFacts.of(config.data.open("train"))
    state, (segment,) = State(config, facts, torch.device("cpu")), segments(config)
    data = trainer.DataExamples(config.data.open("train"), facts.codec)
    units = torch.eye(64).reshape(64, 8, 8).numpy()
    low, *details = pywt.wavedec2(units, "haar", level=3, axes=(-2, -1))
    bands = [low, *(band for level in details for band in level)]
    matrices = [torch.from_numpy(band.reshape(64, -1)).float() for band in bands]
    weights = torch.ones(10)  # of the first update, and then by the energies of the targets before
    for step in range(2):
        index = batch_indices(len(data), 32, step, state.keys)
        draw = Draw(Keys(3), step, 32, slice(0, 32))
        batch = data.batch(index, draw)
        targets = config.objective.targets(state.networks, batch, draw, segment.progress(step))
        query = targets.query
        error = state.network(query.x_t, query.t, query.d, query.condition, query.guidance) - targets.target
        parts = [(error.reshape(32, 64) @ matrix).square().sum() for matrix in matrices]
        loss = (weights.float() * torch.stack(parts)).sum() / 64 / 32
        loss.backward()
        exact = torch.cat([p.grad.flatten() for p in state.network.parameters() if p.grad is not None])
        state.network.zero_grad(set_to_none=True)
        update.update(state, data, segment)
        torch.testing.assert_close(gradients[-1], exact, rtol=1e-4, atol=1e-6)
        assert gradients[-1].norm() > 1e-3
        assert state.meter.record()["loss"] == pytest.approx(loss.item(), rel=1e-5)
        state.meter.clear()
        weights = weights_of(energies(targets.target))


@pytest.fixture
def constant() -> Any:
    """A method whose targets are smooth pictures, and a network that says them but for white noise."""

    class Smooth(Shortcut):
        def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
            made = super().targets(networks, batch, draw, progress)
            return replace(made, target=batch.x1.cumsum(-1).cumsum(-2))

    return Smooth(M=4)


def test_whitened_bands_are_equally_wrong_where_nothing_is_predicted_and_coarse_ones_are_lowered(
    constant: Shortcut, small: Config
) -> None:
    """Per element, each band of a zero answer costs alike; a white error costs what it does in the squared error."""
    networks = Networks(small.network.build(SHAPE, UNCONDITIONAL, 4), small.network.build(SHAPE, UNCONDITIONAL, 4))
    part = (
        Batch(made((512, *SHAPE), 1), made((512, *SHAPE), 2)),
        Draw(Keys(0), 0, 512, slice(0, 512)),
        PhaseProgress(0, 1),
    )
    targets = constant.targets(networks, *part)
    target, query = targets.target, targets.query
    state = WHITENED.start(SHAPE, constant.tags, constant.marked, torch.device("cpu"))
    sums = WHITENED.statistics(state, target, target)
    WHITENED.observe(state, {name: value.double() for name, value in sums.items()})
    weights = WHITENED.band_weights(state, SHAPE)
    assert float(weights[0]) < 0.01
    assert float(weights[-1]) > 1
    share = band_shares(SHAPE, 3).float()
    bands = torch.stack([band_error(0 * target, target, one, 3).mean() for one in torch.diag(weights)])
    torch.testing.assert_close(bands / share, (bands / share)[:1].expand(10), rtol=1e-4, atol=0)
    white = made((4096, *SHAPE), 3)
    parts = torch.stack([band_error(white, 0 * white, one, 3).mean() for one in torch.diag(weights)])
    torch.testing.assert_close(parts, share * weights, rtol=0.1, atol=0)
    rows = WHITENED.rows(state, white, 0 * white, query, constant.error)
    assert float(rows.mean()) == pytest.approx(1, rel=0.02)


PENALTIES = [
    WHITENED,
    Haar(norm="l1", bands="flat"),
    Haar(norm="charbonnier", eps=0.1, bands="flat"),
    Haar(bands="fixed", weights=(0.25, 0.5, 1.0, 2.0)),
    Haar(levels=1, norm="l1"),
]


def test_every_penalty_trains_another_network(tiny: Config, tmp_path: Path) -> None:
    ends = []
    for n, penalty in enumerate([Own(), *PENALTIES]):
        train(replace(tiny, penalty=penalty), tmp_path / str(n))
        ends.append((tmp_path / str(n) / "log.jsonl").read_text())
    assert len(set(ends)) == len(ends)


def test_fixed_weights_are_of_the_low_band_and_of_each_level_and_equal_ones_the_flat_penalty() -> None:
    prediction, target = made((4, *SHAPE), 1), made((4, *SHAPE), 2)
    unused: Any = None

    def rows(**fields: Any) -> Tensor:
        penalty = Haar(**fields)
        state = penalty.start(SHAPE, ("flow",), (), torch.device("cpu"))
        return penalty.rows(state, prediction, target, unused, unused)

    fixed = rows(bands="fixed", weights=(0.25, 0.5, 1.0, 2.0))
    exact = band_error(prediction, target, torch.tensor([0.25, *[0.5] * 3, *[1.0] * 3, *[2.0] * 3]), 3)
    torch.testing.assert_close(fixed, exact, rtol=0, atol=0)
    flat = rows(norm="l1", bands="flat")
    torch.testing.assert_close(rows(norm="l1", bands="fixed", weights=(2.0,) * 4), 2 * flat)


@pytest.mark.parametrize("at", [1, 5, 7])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_is_the_same_bit_for_bit(
    small: Config, whole: Whole, tmp_path: Path, at: int, accumulate: int
) -> None:
    """Between checkpoints, and after the first update, whose energies are the first of the average."""
    training = replace(small.training, images=32 * 11, accumulate=accumulate)
    config = replace(small, penalty=WHITENED, training=training)
    stop, watch = stopping(at + 1)
    assert train(config, tmp_path / "parts", watch=watch, stop=stop).step in {at, at + 1}
    train(config, tmp_path / "parts", resume=True)
    assert_same(whole(config), tmp_path / "parts")
    (last,) = (tmp_path / "parts" / "checkpoints").glob("step-00000011")
    assert (last / "penalty.safetensors").exists()


def test_an_update_that_is_skipped_leaves_the_energies(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first and the third have no finite gradient: the second begins the average with its own energies."""
    norm, calls = update.get_total_norm, 0

    def sometimes(tensors: list[Tensor]) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.tensor(math.nan) if calls in {1, 3} else norm(tensors)

    monkeypatch.setattr(update, "get_total_norm", sometimes)
    seen = Watched(monkeypatch, replace(tiny, penalty=replace(WHITENED, decay=0.5)), tmp_path / "run")
    own = [energies(targets[-1]) for targets in seen.targets]  # the last is the applied update's
    assert len(own) == 4
    torch.testing.assert_close(seen.energy[0], own[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(seen.energy[1], 0.5 * own[0] + 0.5 * own[1], rtol=1e-5, atol=0)


def test_vectors_have_bands_too(tmp_path: Path) -> None:
    """Of a point (a, b): (a + b) / sqrt(2) and (a - b) / sqrt(2)."""
    config = find_recipe("eight_gaussians-shortcut")
    short = replace(config, penalty=WHITENED, training=replace(config.training, images=512, batch=256, device="cpu"))
    train(replace(short, preview=replace(config.preview, num=0)), tmp_path / "run")
    record = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert record["step"] == 2 and 0 < record["loss"] < 10


def test_a_run_of_several_phases_keeps_its_energies_over_the_hand_over(tmp_path: Path, small: Config) -> None:
    """Stopped between two phases it goes on as if it had not been."""
    objective = Reflow(pairs=32, pair_steps=2)
    config = replace(small, objective=objective, penalty=WHITENED, network=replace(small.network, step_encoding="none"))
    train(config, tmp_path / "whole")
    edge = segments(config)[0].last
    stop, watch = stopping(edge)
    assert train(config, tmp_path / "parts", watch=watch, stop=stop).step == edge
    train(config, tmp_path / "parts", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_penalty_comes_back_from_its_json(small: Config, penalty: Haar) -> None:
    config = replace(small, penalty=penalty)
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.parametrize("method", OBJECTIVES)
def test_a_method_with_an_error_of_its_own_is_refused(method: str) -> None:
    config = find_recipe(f"digits-{method}")
    if method == "imm":
        words = "^penalty haar acts on the error of each example, and imm compares groups of examples: remove"
        with pytest.raises(UsageError, match=words):
            replace(config, penalty=WHITENED)
    elif method in {"ict", "mean_flow", "alpha_flow"}:
        words = f"^penalty haar replaces the squared error, and {method} has another error: remove the section penalty$"
        with pytest.raises(UsageError, match=words):
            replace(config, penalty=WHITENED)
    else:
        assert replace(config, penalty=WHITENED).penalty == WHITENED


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm": "huber"}, "penalty.norm must be one of l2, l1, charbonnier, got 'huber'"),
        ({"bands": "equal"}, "penalty.bands must be one of whitened, fixed, flat, got 'equal'"),
        ({"levels": 0}, "penalty.levels must be at least 1, got 0"),
        ({"norm": "charbonnier", "eps": 0.0}, "penalty.eps must be greater than 0 and finite, got 0.0"),
        ({"decay": 1.0}, r"penalty.decay must be in \[0, 1\), got 1.0"),
        ({"eps": 0.1}, "^penalty.eps has no effect without penalty.norm charbonnier: set both, or neither$"),
        ({"norm": "l1", "bands": "flat", "decay": 0.5}, "penalty.decay has no effect without penalty.bands whitened"),
        ({"weights": (1.0, 2.0)}, "penalty.weights has no effect without penalty.bands fixed"),
        ({"bands": "fixed"}, "penalty.bands fixed needs penalty.weights: of the low band, then"),
        ({"bands": "fixed", "weights": (0.0, 0.0)}, "penalty.bands fixed needs penalty.weights"),
        ({"bands": "fixed", "weights": (1.0, -2.0)}, r"penalty.weights must be at least 0 and finite, got -2.0"),
        ({"bands": "fixed", "weights": (1.0, math.inf)}, r"penalty.weights must be at least 0 and finite, got inf"),
        (
            {"bands": "flat"},
            "^Haar bands of equal weights with penalty.norm l2 are the squared error: set penalty.bands whitened",
        ),
        (
            {"bands": "fixed", "weights": (2.0, 2.0)},
            "Haar bands of equal weights with penalty.norm l2 are the squared error",
        ),
    ],
)
def test_what_does_nothing_or_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Haar(**fields)


@pytest.mark.parametrize(
    ("penalty", "shape", "message"),
    [
        (WHITENED, (1, 27, 28), "^penalty haar halves every side, and 27 x 28 has an odd one: use another penalty$"),
        (WHITENED, (3,), "penalty haar halves every side, and 3 has an odd one"),
        (
            WHITENED,
            (16, 2),
            r"^penalty haar is for images \[C, H, W\] and vectors \[D\], and examples here are 16 x 2$",
        ),
        (
            replace(WHITENED, levels=3),
            (1, 28, 28),
            "^penalty.levels must be at most 2 for 28 x 28, as each halves every side, got 3$",
        ),
        (PENALTIES[3], (1, 28, 28), "^penalty.weights must be 3, of the low band and 2 levels, coarse to fine, got 4$"),
    ],
)
def test_data_that_has_no_such_bands_is_refused(penalty: Penalty, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        penalty.start(shape, ("flow",), (), torch.device("cpu"))


def test_the_penalty_cannot_change_in_a_run(tiny: Config, tmp_path: Path) -> None:
    train(tiny, tmp_path / "run")
    with pytest.raises(UsageError, match=r"penalty\.name is own, not haar; only --images, --device"):
        train(replace(tiny, penalty=WHITENED), tmp_path / "run", resume=True)


def test_a_config_of_0_1_0_has_its_loss_as_a_penalty(small: Config) -> None:
    """There the section was `loss`, with a kind, and `penalty` the name of the norm."""
    values = to_json(small)
    del values["version"], values["penalty"], values["weight"]
    fields = {"levels": 2, "penalty": "charbonnier", "eps": 0.1, "bands": "flat", "weights": None, "decay": 0.99}
    haar = from_json(values | {"loss": {"kind": "haar", **fields}})
    assert haar == replace(small, penalty=Haar(levels=2, norm="charbonnier", eps=0.1, bands="flat"))
    default = {"levels": None, "penalty": "l2", "eps": 1e-3, "bands": "whitened", "weights": None, "decay": 0.99}
    assert from_json(values | {"loss": {"kind": "objective", **default}}) == small
    assert from_json(values) == small
    with pytest.raises(ValueError, match=r"unknown field config\.loss"):
        from_json(to_json(small) | {"loss": {"kind": "haar"}})
    with pytest.raises(ValueError, match=r"^config\.version must be at most 2, got 3: a later anystep wrote this$"):
        from_json(values | {"version": 3})
