"""Previews, checkpoints by the clock and the decided precision: what a run shows early, and that it changes nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.training.same import assert_same, stopping

from anystep.core.errors import UsageError
from anystep.core.files import write_bytes
from anystep.data import Dataset, Npz, Source, TwoMoons
from anystep.model.load import load
from anystep.networks import MLPConfig
from anystep.objectives import ImprovedConsistencyTraining, MeanFlow, Shortcut
from anystep.recipes.method import network_for
from anystep.run import checkpoint
from anystep.run.config import CheckpointConfig, Config, PreviewConfig
from anystep.run.facts import read_config
from anystep.training import preview, trainer
from anystep.training.trainer import decide_precision, train

CPU = torch.device("cpu")


def with_previews(config: Config, num: int | None = 3) -> Config:
    return replace(config, preview=PreviewConfig(num), objective=Shortcut(M=8, guidance=1.5))


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which a checkpoint and a preview are due after every update."""
    monkeypatch.setattr(trainer, "FIRST", 0.0)
    monkeypatch.setattr(preview, "SHARE", float("inf"))


def test_previews_and_checkpoints_by_the_clock_change_nothing(small: Config, tmp_path: Path, restless: None) -> None:
    quiet = replace(with_previews(small, 0), checkpoint=CheckpointConfig(every=32 * 5, minutes=None))
    train(quiet, tmp_path / "without")
    busy = replace(with_previews(small), checkpoint=CheckpointConfig(every=32 * 5, minutes=1e-9))
    seen = []

    def watch(step: int, record: object) -> None:
        seen.append([step for step, _ in checkpoint.listing(tmp_path / "with" / "checkpoints")])

    train(busy, tmp_path / "with", watch=watch)
    assert_same(tmp_path / "without", tmp_path / "with")
    assert seen[0] == [1] and seen[2] == [2, 3] and seen[7] == [5, 7, 8]
    assert len([*(tmp_path / "with" / "previews").iterdir()]) == 24
    assert not (tmp_path / "without" / "previews").exists()
    final = [[step for step, _ in checkpoint.listing(tmp_path / run / "checkpoints")] for run in ("with", "without")]
    assert final == [[20, 24], [20, 24]]


def test_a_preview_is_what_sample_draws_from_its_checkpoint(small: Config, tmp_path: Path) -> None:
    config = replace(with_previews(small), training=replace(small.training, images=32 * 5))
    train(config, tmp_path / "run")
    shown = Image.open(tmp_path / "run" / "previews" / "step-00000005.png")
    generator = load(tmp_path / "run", device="cpu")
    samples = {n: generator.decode(generator.generate(steps=n, num=3)) for n in (1, 4, 8)}
    assert np.array_equal(np.asarray(shown), np.asarray(preview.steps_figure({"samples": samples})))


@pytest.mark.parametrize("width", [2, 3])
def test_vectors_are_shown_as_points_or_histograms(small: Config, tmp_path: Path, width: int) -> None:
    pytest.importorskip("matplotlib")
    source: Source = TwoMoons(num=200)
    if width == 3:
        np.savez(tmp_path / "v.npz", v=np.random.default_rng(0).normal(size=(99, 3)).astype(np.float32))
        source = Npz(path=str(tmp_path / "v.npz"), images="v", labels=None)
    config = replace(with_previews(small, 20), data=source, network=MLPConfig(hidden=8, depth=1))
    config = replace(config, objective=Shortcut(M=8))
    train(replace(config, training=replace(config.training, images=32)), tmp_path / "run")
    (shown,) = (tmp_path / "run" / "previews").glob("*.png")
    assert np.asarray(Image.open(shown)).std() > 5


def test_previews_that_cannot_be_written_are_reported_and_training_goes_on(
    small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    assert preview.write_bytes is write_bytes
    monkeypatch.setattr(preview, "write_bytes", full)
    said: list[str] = []
    config = with_previews(small)
    result = train(replace(config, training=replace(config.training, images=32)), tmp_path / "run", say=said.append)
    assert result.step == 1
    assert any("cannot write a preview" in line and "No space left on device" in line for line in said)


def test_previews_take_little_of_the_time_but_the_last_is_always_drawn(
    small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that took a second is followed by none for twenty: here the clock stands, and only the last comes."""
    now = iter(range(10**6))
    monkeypatch.setattr(preview.time, "monotonic", lambda: float(next(now)))
    monkeypatch.setattr(preview, "SHARE", 1e-9)
    train(with_previews(small), tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run" / "previews").iterdir())
    assert names[-1] == "step-00000024.png" and len(names) == 2


def test_a_stop_draws_no_preview(small: Config, tmp_path: Path) -> None:
    stop, watch = stopping(3)
    assert train(with_previews(small), tmp_path / "run", watch=watch, stop=stop).step == 3
    assert not (tmp_path / "run" / "previews").exists()


def test_records_are_close_at_first_at_fixed_updates(small: Config, tmp_path: Path) -> None:
    config = replace(small, log=replace(small.log, every=32 * 10), training=replace(small.training, images=32 * 24))
    train(config, tmp_path / "run")
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 4, 8, 10, 20, 24]


@pytest.mark.parametrize("fast", [True, False])
def test_precision_is_decided_at_the_start_and_kept(
    small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    """Also on another machine, and where the caller sets no precision again."""
    auto = replace(small, training=replace(small.training, precision="auto", images=32 * 2))
    monkeypatch.setattr(trainer, "has_bfloat16", lambda device: fast)
    train(auto, tmp_path / "run")
    decided = "bfloat16" if fast else "float32"
    assert read_config(tmp_path / "run").training.precision == decided
    monkeypatch.setattr(trainer, "has_bfloat16", lambda device: not fast)
    longer = replace(auto, training=replace(auto.training, images=32 * 4))
    train(longer, tmp_path / "run", resume=True)
    assert read_config(tmp_path / "run").training.precision == decided
    explicit = replace(longer, training=replace(longer.training, precision=decided))
    train(explicit, tmp_path / "whole")
    assert_same(tmp_path / "whole", tmp_path / "run")
    other = replace(longer, training=replace(longer.training, precision="float32" if fast else "bfloat16"))
    with pytest.raises(UsageError, match=r"training\.precision is"):
        train(other, tmp_path / "run", resume=True)


@pytest.mark.parametrize("method", [MeanFlow(), Shortcut(), ImprovedConsistencyTraining()])
def test_methods_with_forward_differentiation_stay_in_float32(
    small: Config, monkeypatch: pytest.MonkeyPatch, method: MeanFlow | Shortcut | ImprovedConsistencyTraining
) -> None:
    monkeypatch.setattr(trainer, "has_bfloat16", lambda device: True)
    config = replace(small, objective=method, network=network_for(small, method))
    config = replace(config, training=replace(config.training, precision="auto"))
    expected = "float32" if isinstance(method, MeanFlow) else "bfloat16"
    assert decide_precision(config, CPU).training.precision == expected


def test_features_of_previews_are_those_of_the_first_examples(small: Config, tmp_path: Path, restless: None) -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    data = Dataset.from_arrays("given", vectors, conditions={"speed": vectors[:, :1]}, drop=False)
    config = replace(with_previews(small, 4), objective=Shortcut(M=8), network=MLPConfig(hidden=8, depth=1))
    config = replace(config, training=replace(config.training, images=32))
    state = trainer.State(config, trainer.DataFacts.of(data), CPU)
    drawn = preview.Previews(state, data, tmp_path, print).generator(config.objective).usual_condition([0, 41])
    torch.testing.assert_close(drawn, torch.from_numpy(vectors[[0, 1], :1]))
