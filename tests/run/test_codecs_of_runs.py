"""The codec of a run: chosen in the config, fitted once, kept in run.json; and the form that 0.1.0 had for it."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from anystep import Config, evaluate, load, train
from anystep.codecs import CODECS, Auto, Pixels, Vectors
from anystep.core.errors import DataError, RunError, UsageError
from anystep.data import Digits, Npz, TwoMoons
from anystep.networks import MLPConfig
from anystep.objectives import FlowMatching
from anystep.run.config import InitConfig, OptimizerConfig, PreviewConfig, TrainingConfig, from_json, to_json
from anystep.run.facts import DataFacts, read_config

OLD = Path(__file__).parents[1] / "fixtures" / "runs-0.1.0"


@pytest.fixture
def moons() -> Config:
    return Config(
        recipe="two_moons-flow_matching",
        data=TwoMoons(num=100),
        network=MLPConfig(hidden=8, depth=1, step_encoding="none"),
        objective=FlowMatching(),
        training=TrainingConfig(images=64, batch=16, device="cpu"),
        preview=PreviewConfig(num=0),
    )


def longer(config: Config) -> Config:
    return replace(config, training=replace(config.training, images=2 * config.training.images))


def changed(run: Path, **values: Any) -> None:
    """Change values of the data in run.json; those of the codec by codec=."""
    record = json.loads((run / "run.json").read_text())
    record["data"]["codec"] |= values.pop("codec", {})
    record["data"] |= values
    (run / "run.json").write_text(json.dumps(record))


def first_release(config: Config, **data: Any) -> dict[str, Any]:
    """The config.json that 0.1.0 wrote."""
    values = {name: value for name, value in to_json(config).items() if name not in ("version", "codec")}
    return values | {"data": values["data"] | data}


def test_flip_of_the_first_release_is_mirror(moons: Config) -> None:
    pictures = replace(moons, data=Npz(path="x.npz"))
    assert from_json(first_release(pictures, flip=True)) == replace(pictures, codec=Pixels(mirror=True))
    assert from_json(first_release(pictures, flip=False)) == from_json(first_release(pictures)) == pictures
    assert pictures.codec == Auto()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 3}, "config.version must be at most 2, got 3: a later anystep wrote this"),
        ({"data": {"name": "npz", "path": "x", "flip": True}}, "unknown field data.flip"),
        ({"codec": {"name": "pixels", "mean": 3.0}}, "unknown field codec.mean"),
        ({"codec": {"name": "pixel"}}, "codec.name must be one of auto, pixels, vectors, got 'pixel'"),
    ],
)
def test_what_a_config_of_today_cannot_hold(moons: Config, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(to_json(moons) | change)


def test_a_config_holds_options_only(moons: Config, tmp_path: Path) -> None:
    train(moons, tmp_path / "run")
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (written["version"], written["codec"]) == (2, {"name": "vectors"})
    assert to_json(replace(moons, codec=DataFacts.read(tmp_path / "run").codec))["codec"] == {"name": "vectors"}


def test_facts_of_the_first_release_have_its_statistics(tmp_path: Path) -> None:
    digits, moons = (json.loads((OLD / name / "run.json").read_text())["data"] for name in ("digits", "moons"))
    pictures, vectors = DataFacts.read(OLD / "digits"), DataFacts.read(OLD / "moons")
    assert pictures.codec == Pixels() and pictures.shape == (1, 8, 8)
    assert pictures.codec.statistics() == {"size": (8, 8, 1), "mean": digits["mean"], "std": digits["std"]}
    assert vectors.codec.statistics() == {"mean": (moons["mean"],) * 2, "std": (moons["std"],) * 2}
    shutil.copytree(OLD / "digits", tmp_path / "mirrored")
    config = json.loads((OLD / "digits" / "config.json").read_text())
    config["data"] = {"name": "npz", "path": "x.npz", "flip": True}
    (tmp_path / "mirrored" / "config.json").write_text(json.dumps(config))
    assert DataFacts.read(tmp_path / "mirrored").codec == Pixels(mirror=True)


def test_a_resumed_run_reads_its_statistics_and_fits_none(moons: Config, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(moons, run)
    changed(run, codec={"mean": [0.5, -0.5], "std": [2.0, 3.0]})
    train(longer(moons), run, resume=True)  # Auto equals what it became
    assert read_config(run).codec == Vectors()
    codec = load(run, device="cpu").codec
    assert codec.statistics() == {"mean": (0.5, -0.5), "std": (2.0, 3.0)}
    assert codec.decode(torch.ones(1, 2)).tolist() == [[2.5, 2.5]]


def test_a_run_goes_on_with_its_own_codec_only(moons: Config, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(moons, run)
    with pytest.raises(UsageError, match=r"codec\.name is vectors, not pixels"):
        train(replace(moons, codec=Pixels()), run, resume=True)
    shutil.copytree(OLD / "digits", tmp_path / "old")
    with pytest.raises(UsageError, match=r"codec\.mirror is False, not True"):
        train(replace(read_config(OLD / "digits"), codec=Pixels(mirror=True)), tmp_path / "old", resume=True)


def test_a_start_that_was_killed_leaves_no_codec_behind(moons: Config, tmp_path: Path) -> None:
    """Its run.json, without a config.json, is written again for what is started now."""
    digits = DataFacts.of(Digits().open("train"), Pixels(mirror=True))
    (tmp_path / "run").mkdir()
    digits.write(tmp_path / "run", "0")
    train(moons, tmp_path / "run")
    assert DataFacts.read(tmp_path / "run").codec == Vectors()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [3]}, r"its codec vectors is fitted to examples of shape \[2\], and the network has \[3\]$"),
        ({"codec": {"mean": [0.0] * 3, "std": [1.0] * 3}}, r"of shape \[3\], and the network has \[2\]$"),
        ({"codec": {"std": [1.0, -1.0]}}, "finite means and stds of at least 0, got .*, -1.0 in column 1$"),
        ({"codec": {"mean": "x"}}, "a mean and a std for each column, got 1 and 2$"),
        ({"codec": {"name": "pixels"}}, "codec pixels needs the statistics mean, size, std, got mean, std$"),
        ({"codec": {"name": "latents"}}, "codec.name must be one of .*, got 'latents'$"),
    ],
)
def test_a_codec_that_does_not_fit_is_refused_in_a_line(
    moons: Config, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    run = tmp_path / "run"
    train(moons, run)
    changed(run, **change)
    for attempt in (lambda: load(run), lambda: train(longer(moons), run, resume=True)):
        with pytest.raises(RunError, match=rf"cannot read \S+run\.json: .*{message}") as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_rows_that_a_codec_cannot_read_are_refused_before_anything_is_written(moons: Config, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two_moons: codec pixels expects uint8 images"):
        train(replace(moons, codec=Pixels()), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_of_a_run_on_otherwise_scaled_data_come_with_a_note(moons: Config, tmp_path: Path) -> None:
    train(moons, tmp_path / "first")
    np.savez(tmp_path / "wide.npz", v=3 * moons.data.open().read(np.arange(100)).numpy())
    wide = replace(
        moons,
        data=Npz(path=str(tmp_path / "wide.npz"), images="v", labels=None),
        init=InitConfig(run=str(tmp_path / "first")),
        optimizer=OptimizerConfig(clip_norm=1.0),
    )
    said: list[str] = []
    train(wide, tmp_path / "second", say=said.append)
    note = f"init.run {tmp_path / 'first'} was trained on data with other statistics (codec vectors)"
    assert [line.startswith(note) for line in said] == [True]
    assert said == json.loads((tmp_path / "second" / "run.json").read_text())["notes"]
    alike: list[str] = []
    train(replace(wide, data=moons.data), tmp_path / "third", say=alike.append)
    assert alike == []


def test_constant_columns_are_said_and_kept(moons: Config, tmp_path: Path) -> None:
    points = moons.data.open().read(np.arange(100)).numpy()
    np.savez(tmp_path / "own.npz", v=np.concatenate([points, np.full((100, 1), 0.3)], 1))
    said: list[str] = []
    own = replace(moons, data=Npz(path=str(tmp_path / "own.npz"), images="v", labels=None))
    train(own, tmp_path / "run", say=said.append)
    assert said == json.loads((tmp_path / "run" / "run.json").read_text())["notes"]
    assert said == ["columns that are constant in the data, and so in samples, where nothing is learned: 2"]
    generator = load(tmp_path / "run", device="cpu")
    samples = generator.decode(generator.generate(steps=3, seed=0, index=range(20)))
    assert (samples[:, 2] == np.float32(0.3)).all() and np.ptp(samples[:, 0]) > 0
    (row,) = evaluate(generator, own.data.open("train"), steps=[2], num=20)
    assert np.isfinite([row["frechet"], row["recall"], row["energy"]]).all()
    assert row["protocol"]["features"] == "columns"


@dataclass(frozen=True)
class Polar(Vectors):
    """A codec of its own, with examples of the same shape."""

    name: ClassVar[str] = "polar"


def test_weights_of_a_run_of_another_codec_are_refused(
    moons: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CODECS, "polar", Polar)
    train(replace(moons, codec=Polar()), tmp_path / "first")
    with pytest.raises(RunError, match="was trained on data of codec polar, and this data has vectors"):
        train(replace(moons, init=InitConfig(run=str(tmp_path / "first"))), tmp_path / "second")
