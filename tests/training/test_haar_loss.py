"""A penalty on Haar bands in training: its weights, its gradient, exact resumption, and what it refuses."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pywt
import torch
from tests.training.same import assert_same, stopping
from torch import Tensor

from anystep.core.errors import UsageError
from anystep.flow.penalties.haar import FLOOR, band_error, band_shares
from anystep.objectives import (
    OBJECTIVES,
    Batch,
    Draw,
    Losses,
    Networks,
    Objective,
    Progress,
    Reflow,
    Shortcut,
    Targets,
)
from anystep.recipes import find_recipe
from anystep.run.config import Config, LossConfig, TrainingConfig, from_json, to_json
from anystep.run.loss import HaarLoss
from anystep.run.plan import segments
from anystep.training import trainer
from anystep.training.state import State
from anystep.training.trainer import train

WHITENED = LossConfig(kind="haar")
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
    inverse = 1 / energy.clamp(min=FLOOR * float((share * energy).sum()))
    return inverse / float((share * inverse).sum())


class Watched:
    """What each update of a run was made of: its targets, its predictions, the gradient, the weights of its bands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, config: Config, out: Path) -> None:
        self.targets: list[list[Tensor]] = []
        self.weights: list[Tensor | None] = []
        self.energy: list[Tensor | None] = []
        self.losses: list[list[Losses]] = []
        rows, apply = HaarLoss.rows, State.apply

        def watched_rows(haar: HaarLoss, objective: Objective, networks: Networks, part: Any) -> Losses:
            losses = rows(haar, objective, networks, part)
            self.now.append((objective.targets(networks, *part).target, losses))
            return losses

        def watched_apply(state: State, rate: float) -> None:
            assert state.haar is not None
            self.weights.append(state.haar.weights)
            apply(state, rate)
            self.energy.append(state.haar.energy)
            self.targets.append([target for target, _ in self.now])
            self.losses.append([losses for _, losses in self.now])
            self.now = []

        self.now: list[tuple[Tensor, Losses]] = []
        monkeypatch.setattr(HaarLoss, "rows", watched_rows)
        monkeypatch.setattr(State, "apply", watched_apply)
        train(config, out)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_an_update_weighs_by_the_energies_of_those_before_it(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    """The first by its own; transcribed with PyWavelets, whatever the micro-batches."""
    training = replace(tiny.training, accumulate=accumulate)
    seen = Watched(monkeypatch, replace(tiny, loss=replace(WHITENED, decay=0.75), training=training), tmp_path / "run")
    average: Tensor | None = None
    for targets, weights, energy in zip(seen.targets, seen.weights, seen.energy, strict=True):
        assert len(targets) == accumulate and weights is not None and energy is not None
        own = energies(torch.cat(targets))
        torch.testing.assert_close(weights.double(), weights_of(own if average is None else average), rtol=1e-5, atol=0)
        average = own if average is None else 0.75 * average + 0.25 * own
        torch.testing.assert_close(energy, average, rtol=1e-5, atol=0)
    assert len(seen.weights) == 6


def test_accumulation_changes_rounding_only(tiny: Config, tmp_path: Path) -> None:
    logs = []
    for n in (1, 4):
        config = replace(tiny, loss=WHITENED, training=replace(tiny.training, accumulate=n))
        train(config, tmp_path / str(n))
        logs.append([json.loads(line)["loss"] for line in (tmp_path / str(n) / "log.jsonl").read_text().splitlines()])
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)


def test_the_gradient_and_the_logged_loss_of_an_update_are_those_of_the_formula(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sum_b w_b |W_b (s - target)|^2 / 64, with PyWavelets' weights and a matrix W of its transform."""
    gradients: list[Tensor] = []
    norm = trainer.get_total_norm

    def kept(tensors: list[Tensor]) -> Tensor:
        gradients.append(torch.cat([tensor.flatten().clone() for tensor in tensors]))
        return norm(tensors)

    monkeypatch.setattr(trainer, "get_total_norm", kept)
    config = replace(tiny, loss=WHITENED, training=TrainingConfig(images=32, batch=32, seed=3, device="cpu"))
    train(config, tmp_path / "run")

    facts = trainer.DataFacts.of(config.data.open("train"))
    state = State(config, facts, torch.device("cpu"))
    data = trainer.DataExamples(config.data.open("train"), facts.codec)
    (index,) = trainer.batches(len(data), config, 0, 1)
    draw = Draw(3, 0, 32, slice(0, 32))
    targets = config.objective.targets(state.networks, data.batch(data.read(index), index, draw), draw, Progress(0, 1))
    query = targets.query
    error = state.network(query.x_t, query.t, query.d, query.label, query.guidance) - targets.target
    units = torch.eye(64).reshape(64, 8, 8).numpy()
    low, *details = pywt.wavedec2(units, "haar", level=3, axes=(-2, -1))
    bands = [low, *(band for level in details for band in level)]
    matrices = [torch.from_numpy(band.reshape(64, -1)).float() for band in bands]
    weights = weights_of(energies(targets.target))
    parts = [(error.reshape(32, 64) @ matrix).square().sum() for matrix in matrices]
    loss = torch.stack([weight.float() * part for weight, part in zip(weights, parts, strict=True)]).sum() / 64 / 32
    loss.backward()
    exact = torch.cat([p.grad.flatten() for p in state.network.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], exact, rtol=1e-4, atol=1e-6)
    assert gradients[0].norm() > 1e-3
    record = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert record["loss"] == pytest.approx(loss.item(), rel=1e-5)


@pytest.fixture
def constant() -> Any:
    """A method whose targets are smooth pictures, and a network that says them but for white noise."""

    class Smooth(Shortcut):
        def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: Progress) -> Targets:
            made = super().targets(networks, batch, draw, progress)
            return replace(made, target=batch.x1.cumsum(-1).cumsum(-2))

    return Smooth(M=4)


def test_whitened_bands_are_equally_wrong_where_nothing_is_predicted_and_coarse_ones_are_lowered(
    constant: Shortcut, small: Config
) -> None:
    """Per element, each band of a zero answer costs alike; a white error costs what it does in the squared error."""
    haar = HaarLoss(WHITENED, SHAPE)
    networks = Networks(small.network.build(SHAPE, None, 4), small.network.build(SHAPE, None, 4))
    part = Batch(made((512, *SHAPE), 1), made((512, *SHAPE), 2)), Draw(0, 0, 512, slice(0, 512)), Progress(0, 1)
    haar.begin(constant, networks, [part])
    target = constant.targets(networks, *part).target
    assert haar.weights is not None
    assert float(haar.weights[0]) < 0.01
    assert float(haar.weights[-1]) > 1
    share = band_shares((1, *SHAPE), 3).float()
    bands = torch.stack([band_error(0 * target, target, 3, one).mean() for one in torch.diag(haar.weights)])
    torch.testing.assert_close(bands / share, (bands / share)[:1].expand(10), rtol=1e-4, atol=0)
    white = made((4096, *SHAPE), 3)
    query = constant.targets(networks, *part).query
    parts = torch.stack([band_error(white, 0 * white, 3, one).mean() for one in torch.diag(haar.weights)])
    torch.testing.assert_close(parts, share * haar.weights, rtol=0.1, atol=0)
    assert float(haar.penalty(white, 0 * white, query).mean()) == pytest.approx(1, rel=0.02)


LOSSES = [
    WHITENED,
    LossConfig(kind="haar", penalty="l1", bands="flat"),
    LossConfig(kind="haar", penalty="charbonnier", eps=0.1, bands="flat"),
    LossConfig(kind="haar", bands="fixed", weights=(0.25, 0.5, 1.0, 2.0)),
    LossConfig(kind="haar", levels=1, penalty="l1"),
]


def test_every_loss_trains_another_network(tiny: Config, tmp_path: Path) -> None:
    ends = []
    for n, loss in enumerate([LossConfig(), *LOSSES]):
        train(replace(tiny, loss=loss), tmp_path / str(n))
        ends.append((tmp_path / str(n) / "log.jsonl").read_text())
    assert len(set(ends)) == len(ends)


def test_fixed_weights_are_of_the_low_band_and_of_each_level_and_equal_ones_the_flat_loss() -> None:
    prediction, target = made((4, *SHAPE), 1), made((4, *SHAPE), 2)
    query: Any = None

    def rows(**fields: Any) -> Tensor:
        return HaarLoss(LossConfig(kind="haar", **fields), SHAPE).penalty(prediction, target, query)

    fixed = rows(bands="fixed", weights=(0.25, 0.5, 1.0, 2.0))
    exact = band_error(prediction, target, 3, torch.tensor([0.25, *[0.5] * 3, *[1.0] * 3, *[2.0] * 3]))
    torch.testing.assert_close(fixed, exact, rtol=0, atol=0)
    flat = rows(penalty="l1", bands="flat")
    torch.testing.assert_close(rows(penalty="l1", bands="fixed", weights=(2.0,) * 4), 2 * flat)


@pytest.mark.parametrize("at", [1, 5, 7])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_is_the_same_bit_for_bit(small: Config, tmp_path: Path, at: int, accumulate: int) -> None:
    """Between checkpoints, and after the first update, whose energies are the first of the average."""
    training = replace(small.training, images=32 * 11, accumulate=accumulate)
    config = replace(small, loss=WHITENED, training=training)
    train(config, tmp_path / "whole")
    stop, watch = stopping(at + 1)
    assert train(config, tmp_path / "parts", watch=watch, stop=stop).step in {at, at + 1}
    train(config, tmp_path / "parts", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "parts")
    (last,) = (tmp_path / "parts" / "checkpoints").glob("step-00000011")
    assert (last / "loss.safetensors").exists()


def test_an_update_that_is_skipped_leaves_the_energies(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first and the third have no finite gradient: the second begins the average with its own energies."""
    norm, calls = trainer.get_total_norm, 0

    def sometimes(tensors: list[Tensor]) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.tensor(math.nan) if calls in {1, 3} else norm(tensors)

    monkeypatch.setattr(trainer, "get_total_norm", sometimes)
    seen = Watched(monkeypatch, replace(tiny, loss=replace(WHITENED, decay=0.5)), tmp_path / "run")
    own = [energies(targets[-1]) for targets in seen.targets]  # the last is the applied update's
    assert len(own) == 4
    assert seen.energy[0] is not None and seen.energy[1] is not None
    torch.testing.assert_close(seen.energy[0], own[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(seen.energy[1], 0.5 * own[0] + 0.5 * own[1], rtol=1e-5, atol=0)


def test_vectors_have_bands_too(tmp_path: Path) -> None:
    """Of a point (a, b): (a + b) / sqrt(2) and (a - b) / sqrt(2)."""
    config = find_recipe("eight_gaussians-shortcut")
    short = replace(config, loss=WHITENED, training=replace(config.training, images=512, batch=256, device="cpu"))
    train(short, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert record["step"] == 2 and 0 < record["loss"] < 10


def test_a_run_of_several_phases_keeps_its_energies_over_the_hand_over(tmp_path: Path, small: Config) -> None:
    """Stopped between two phases it goes on as if it had not been."""
    objective = Reflow(pairs=32, pair_steps=2)
    config = replace(small, objective=objective, loss=WHITENED, network=replace(small.network, step_encoding="none"))
    train(config, tmp_path / "whole")
    edge = segments(config)[0].last
    stop, watch = stopping(edge)
    assert train(config, tmp_path / "parts", watch=watch, stop=stop).step == edge
    train(config, tmp_path / "parts", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_comes_back_from_its_json(small: Config, loss: LossConfig) -> None:
    config = replace(small, loss=loss)
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.parametrize("method", OBJECTIVES)
def test_a_method_with_an_error_of_its_own_is_refused(method: str) -> None:
    config = find_recipe(f"digits-{method}")
    if method in {"ict", "mean_flow", "alpha_flow", "imm"}:
        words = f"^loss.kind haar replaces the squared error, and {method} has an error of its own: leave it out$"
        with pytest.raises(ValueError, match=words):
            replace(config, loss=WHITENED)
    else:
        assert replace(config, loss=WHITENED).loss.kind == "haar"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "wavelet"}, "loss.kind must be one of objective, haar, got 'wavelet'"),
        ({"kind": "haar", "penalty": "huber"}, "loss.penalty must be one of l2, l1, charbonnier, got 'huber'"),
        ({"kind": "haar", "bands": "equal"}, "loss.bands must be one of whitened, fixed, flat, got 'equal'"),
        ({"kind": "haar", "levels": 0}, "loss.levels must be at least 1, got 0"),
        ({"kind": "haar", "penalty": "charbonnier", "eps": 0.0}, "loss.eps must be greater than 0 and finite, got 0.0"),
        ({"kind": "haar", "decay": 1.0}, r"loss.decay must be in \[0, 1\), got 1.0"),
        ({"penalty": "l1"}, "^loss.penalty does nothing without loss.kind haar: set that too, or leave it out$"),
        ({"levels": 2}, "loss.levels does nothing without loss.kind haar"),
        ({"kind": "haar", "eps": 0.1}, "loss.eps does nothing without loss.penalty charbonnier"),
        ({"kind": "haar", "penalty": "l1", "bands": "flat", "decay": 0.5}, "loss.decay does nothing without loss.b"),
        ({"kind": "haar", "weights": (1.0, 2.0)}, "loss.weights does nothing without loss.bands fixed"),
        ({"kind": "haar", "bands": "fixed"}, "loss.bands fixed needs loss.weights: of the low band, then"),
        ({"kind": "haar", "bands": "fixed", "weights": (0.0, 0.0)}, "loss.bands fixed needs loss.weights"),
        ({"kind": "haar", "bands": "fixed", "weights": (1.0, -2.0)}, r"loss.weights must be in \[0, inf\], got -2.0"),
        ({"kind": "haar", "bands": "fixed", "weights": (1.0, math.inf)}, "loss.weights must be finite, got inf"),
        ({"kind": "haar", "bands": "flat"}, "^loss.bands flat with loss.penalty l2 is the squared error, as"),
        ({"kind": "haar", "bands": "fixed", "weights": (2.0, 2.0)}, "all weights alike, with loss.penalty l2 is the s"),
    ],
)  # fmt: skip
def test_what_does_nothing_or_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossConfig(**fields)


@pytest.mark.parametrize(
    ("loss", "shape", "message"),
    [
        (WHITENED, (1, 27, 28), "^loss.kind haar halves every side, and 27 x 28 has an odd one: leave loss.kind out$"),
        (WHITENED, (3,), "loss.kind haar halves every side, and 3 has an odd one"),
        (replace(WHITENED, levels=3), (1, 28, 28), "^loss.levels must be at most 2 for 28 x 28 "),
        (LOSSES[3], (1, 28, 28), "^loss.weights must be 3, of the low band and 2 levels, coarse to fine, got 4$"),
    ],
)
def test_data_that_has_no_such_bands_is_refused(loss: LossConfig, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss.build(shape)


def test_the_loss_cannot_change_in_a_run(tiny: Config, tmp_path: Path) -> None:
    train(tiny, tmp_path / "run")
    with pytest.raises(UsageError, match=r"loss\.kind is objective, not haar; only --images and --device may change"):
        train(replace(tiny, loss=WHITENED), tmp_path / "run", resume=True)
