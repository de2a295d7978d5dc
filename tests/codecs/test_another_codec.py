"""A codec from outside: moments of an autoencoder that is nearest-neighbour scaling. It stands for latents.

It trains, resumes, loads, samples, evaluates and reports, and no file of the library knows it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from anystep import Dataset, evaluate, load, train
from anystep.cli.main import main
from anystep.codecs import CODECS, Codec, Looks, RowReader, Rows, sampled, statistic
from anystep.core.errors import RunError
from anystep.core.random import Draw, Keys
from anystep.data import SOURCES, Source
from anystep.data.base import Split, select_split
from anystep.networks import DiTConfig
from anystep.objectives import Shortcut
from anystep.run.config import CheckpointConfig, Config, EmaConfig, LogConfig, TrainingConfig
from anystep.run.facts import DataFacts, read_config


@dataclass(frozen=True)
class Moments(Codec):
    """Stored float16 [2, C, h, w]: mean and deviation of a latent, which is drawn from them in training.

    A latent is 1/100 of the grey level of a square of 2 x 2 pixels.
    """

    name: ClassVar[str] = "moments"
    looks: ClassVar[Looks] = "picture"

    sampled: bool = True
    scale: float = statistic()
    size: tuple[int, ...] = statistic()

    def fit(self, rows: RowReader) -> Self:
        means = sampled(rows)[:, 0].double()
        return self.fitted(scale=float(means.std(correction=0)), size=tuple(means.shape[1:]))

    def shape(self) -> tuple[int, ...]:
        return self.size

    def encode(self, rows: Rows, draw: Draw | None) -> Tensor:
        mean, std = rows.float().unbind(1)
        if self.sampled and draw is not None:
            mean = mean + std * draw.normal("latent", self.size).to(mean.device)
        return mean / self.scale

    def decode(self, x: Tensor, *, rounded: bool = True) -> Rows:
        grey = (100 * self.scale * x.detach().float()).repeat_interleave(2, -1).repeat_interleave(2, -2)
        grey = grey.permute(0, 2, 3, 1)
        return grey.nan_to_num(0.0).round().clamp(0, 255).to(torch.uint8) if rounded else grey

    def view(self, rows: Rows) -> Rows:
        return self.decode(self.encode(rows, None))

    def normalised(self, viewed: Rows) -> Tensor:
        return viewed.permute(0, 3, 1, 2).float() / (100 * self.scale)


@dataclass(frozen=True)
class Encoded(Source):
    """Digits' means over squares of 2 x 2, computed when a row is read."""

    name: ClassVar[str] = "encoded"
    num: int = 120

    def open(self, split: Split = "train") -> Dataset:
        digits = SOURCES["digits"](heldout=0).open()  # type: ignore[call-arg]

        def row(number: int) -> Tensor:
            picture = digits.read(np.array([number]))[0].float()  # [8, 8, 1]
            mean = picture.reshape(4, 2, 4, 2, 1).mean((1, 3)).permute(2, 0, 1) / 100
            return torch.stack([mean, torch.full_like(mean, 0.05)]).half()

        labels = digits.labels[: self.num] if digits.labels is not None else None
        whole = Dataset.from_function("encoded", self.num, row, codec=Moments(), labels=labels)
        return select_split(whole, 0.25, split)


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setitem(CODECS, "moments", Moments)
    monkeypatch.setitem(SOURCES, "encoded", Encoded)
    return Config(
        recipe="encoded-shortcut",
        data=Encoded(),
        network=DiTConfig(hidden=16, depth=1, heads=2, patch=2),
        objective=Shortcut(M=4),
        ema=EmaConfig(evaluation=0.9),
        training=TrainingConfig(images=6 * 16, batch=16, device="cpu"),
        checkpoint=CheckpointConfig(every=3 * 16),
        log=LogConfig(every=16),
    )


def test_it_trains_resumes_loads_samples_evaluates_and_reports(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole, parts = Path("whole"), Path("parts")
    train(config, whole)
    train(replace(config, training=replace(config.training, images=3 * 16)), parts)
    train(config, parts, resume=True)
    one, other = (load(run, device="cpu") for run in (whole, parts))
    x = one.generate(steps=2, seed=0, index=range(4))
    assert torch.equal(x, other.generate(steps=2, seed=0, index=range(4))), "latents are drawn by (seed, step)"
    assert x.shape == (4, 1, 4, 4) and one.decode(x).shape == (4, 8, 8, 1) and one.decode(x).dtype == np.uint8

    assert read_config(whole).codec == Moments()
    facts, data = DataFacts.read(whole), config.data.open("train")
    assert (
        facts.codec.statistics() == Moments().fit(data).statistics() and facts.shape == (1, 4, 4) and facts.size == 90
    )

    (row,) = evaluate(one, data, steps=[2], num=40, heldout=config.data.open("heldout"))
    assert row["frechet"] > 0 and 0 <= row["recall"] <= 1 and 0 <= row["accuracy"] <= 1
    assert row["protocol"]["quantised"] == "uint8"

    assert main(["sample", "whole", "--steps", "1", "2", "--num", "4", "--device", "cpu"]) == 0
    assert Image.open("whole/samples/samples_1.png").size > (8, 8) and Path("whole/samples/steps.png").exists()
    assert main(["evaluate", "whole", "--steps", "2", "--num", "20", "--device", "cpu"]) == 0
    assert main(["report", "whole", "--steps", "1", "2", "--device", "cpu"]) == 0


def test_the_latents_of_a_batch_are_drawn_again_each_step_and_alike_in_micro_batches(config: Config) -> None:
    data = config.data.open("train")
    codec, rows = Moments().fit(data), data.read(np.arange(64))
    whole = codec.encode(rows, Draw(Keys(0), 5, 64, slice(0, 64)))
    assert torch.equal(whole[32:], codec.encode(rows[32:], Draw(Keys(0), 5, 64, slice(32, 64))))
    assert not torch.equal(whole, codec.encode(rows, Draw(Keys(0), 6, 64, slice(0, 64))))
    spread = (whole - codec.encode(rows, None)).std() * codec.scale
    assert float(spread) == pytest.approx(0.05, rel=0.1)


def test_what_it_lacks_is_named_in_a_line(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(config, tmp_path / "run")
    lacks: Callable[[Codec], str] = lambda codec: "the autoencoder /models/taesd is not here"  # noqa: E731
    monkeypatch.setattr(Moments, "lacks", lacks)
    generator = load(tmp_path / "run", device="cpu")
    x = generator.generate(steps=1, seed=0, index=range(2))
    with pytest.raises(RunError, match=r"samples of run, step 6 cannot be decoded: the autoencoder \S+ is not here"):
        generator.decode(x)


def test_a_run_of_a_codec_that_is_not_known_here_is_rejected_in_a_line(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config, tmp_path / "run")
    monkeypatch.delitem(CODECS, "moments")
    with pytest.raises(RunError, match=r"run\.json: codec\.name must be one of auto, pixels, vectors, got 'moments'"):
        load(tmp_path / "run")
