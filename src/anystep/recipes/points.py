"""Recipes on two-dimensional sets: seconds on a CPU, for figures and for understanding."""

from collections.abc import Callable
from functools import partial

from anystep.data import SOURCES
from anystep.networks import MLPConfig
from anystep.objectives import OBJECTIVES, Objective
from anystep.training.config import CheckpointConfig, Config, EmaConfig, LogConfig, OptimizerConfig, TrainingConfig

SETS = ("two_moons", "eight_gaussians", "checkerboard")


def points(source: str, objective: Objective) -> Config:
    """Return an unconditional run on a 2-D set."""
    return Config(
        recipe=f"{source}-{objective.name}",
        data=SOURCES[source](),
        network=MLPConfig(step_encoding="log2" if objective.uses_step else "none"),
        objective=objective,
        optimizer=OptimizerConfig(lr=1e-3, betas=(0.9, 0.99), clip_norm=1.0, warmup=50_000, decay=0.5),
        ema=EmaConfig(target=0.97, evaluation=0.995),
        training=TrainingConfig(images=1_000_000, batch=1024),
        checkpoint=CheckpointConfig(every=500_000),
        log=LogConfig(every=50_000),
    )


POINTS: dict[str, Callable[[], Config]] = {
    f"{source}-{name}": partial(points, source, method()) for source in SETS for name, method in OBJECTIVES.items()
}
