"""A run that takes seconds: small network, digits, checkpoints and log records that do not fall together."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from anystep.data import Digits
from anystep.networks import DiTConfig
from anystep.objectives import Shortcut
from anystep.run.config import (
    CheckpointConfig,
    Config,
    EmaConfig,
    LogConfig,
    OptimizerConfig,
    PreviewConfig,
    TrainingConfig,
)
from anystep.training.trainer import train

Whole = Callable[[Config], Path]


@pytest.fixture
def small() -> Config:
    return Config(
        recipe="digits-shortcut",
        data=Digits(),
        network=DiTConfig(hidden=16, depth=1, heads=2, patch=4),
        objective=Shortcut(guidance=1.5),
        optimizer=OptimizerConfig(lr=1e-3, warmup=64, decay=0.5, clip_norm=1.0),
        ema=EmaConfig(target=0.9, evaluation=0.99),
        training=TrainingConfig(images=32 * 24, batch=32, seed=3, device="cpu", precision="float32"),
        checkpoint=CheckpointConfig(every=32 * 5),
        preview=PreviewConfig(num=0),
        log=LogConfig(every=32 * 3),
    )


@pytest.fixture
def tiny(small: Config) -> Config:
    return replace(small, training=replace(small.training, images=32 * 6))


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The run of a config, uninterrupted: trained for the first test that compares its own with it, and only read."""
    runs: dict[Config, Path] = {}

    def trained(config: Config) -> Path:
        if config not in runs:
            run = tmp_path_factory.mktemp("whole") / "run"
            train(config, run)
            runs[config] = run
        return runs[config]

    return trained
