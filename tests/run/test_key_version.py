"""A run records the version of its random keys and keeps it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.golden.runs import config

from anystep import load, train
from anystep.core.errors import RunError
from anystep.core.random import Keys
from anystep.objectives import Shortcut
from anystep.run.config import Config

OLD = Path(__file__).parents[1] / "fixtures" / "runs-0.1.0" / "digits"
#: 63 bits of blake2b("5/7/sample"), as anystep 0.1.0 had them
SEED_OF_SAMPLE_7 = 5245189988677626287


@pytest.fixture
def short() -> Config:
    usual = config("short", objective=Shortcut(M=32))
    return replace(usual, training=replace(usual.training, images=2 * usual.training.batch))


def with_keys(run: Path, version: int) -> None:
    values = json.loads((run / "run.json").read_text())
    values["versions"]["keys"] = version
    (run / "run.json").write_text(json.dumps(values))


def test_a_new_run_records_the_newest_version_and_that_of_numpy(short: Config, tmp_path: Path) -> None:
    train(short, tmp_path / "run")
    versions = json.loads((tmp_path / "run" / "run.json").read_text())["versions"]
    assert (versions["keys"], versions["numpy"]) == (2, np.__version__)
    generator = load(tmp_path / "run", device="cpu")
    assert torch.equal(generator.noise(5, [7])[0], Keys(5, 2).normal(7, "sample", (1, 8, 8)))


def test_a_run_of_0_1_0_samples_the_noise_of_its_version() -> None:
    noise = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(SEED_OF_SAMPLE_7))
    assert torch.equal(load(OLD, device="cpu").noise(5, [7])[0], noise)


def test_a_resumed_run_trains_with_its_own_version(short: Config, tmp_path: Path) -> None:
    """Twins but for the version in run.json: they resume at the same checkpoint and go separate ways."""
    longer = replace(short, training=replace(short.training, images=2 * short.training.images))
    train(short, tmp_path / "new")
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    with_keys(tmp_path / "old", 1)
    losses = []
    for run in (tmp_path / "new", tmp_path / "old"):
        train(longer, run, resume=True)
        losses.append([json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()])
    assert losses[0][:2] == losses[1][:2] and losses[0][2] != losses[1][2]
    assert json.loads((tmp_path / "old" / "run.json").read_text())["versions"]["keys"] == 1


def test_an_unknown_version_is_refused_by_name(short: Config, tmp_path: Path) -> None:
    train(short, tmp_path / "run")
    with_keys(tmp_path / "run", 3)
    for refused in (lambda: load(tmp_path / "run"), lambda: train(short, tmp_path / "run", resume=True)):
        with pytest.raises(RunError, match=r"cannot read .*run\.json: random keys of version 3 are unknown here"):
            refused()
