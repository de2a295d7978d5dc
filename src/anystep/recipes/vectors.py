"""Recipes for one's own vectors: float arrays [n, D] in an `.npz`, learned by an MLP."""

from collections.abc import Callable
from functools import partial

from anystep.data import Npz
from anystep.networks import MLPConfig
from anystep.objectives import OBJECTIVES, Objective
from anystep.training.config import CheckpointConfig, Config, EmaConfig, LogConfig, OptimizerConfig, TrainingConfig

#: where vectors are expected unless --data.path says otherwise
PATH = "vectors.npz"


def vectors(objective: Objective) -> Config:
    """Return an MLP's run on one's own vectors: `--data.path` and `--data.images` say which, the rest is as in 2-D."""
    return Config(
        recipe=f"vectors-{objective.name}",
        data=Npz(path=PATH, images="vectors"),
        network=MLPConfig(step_encoding="log2" if objective.uses_step else "none"),
        objective=objective,
        optimizer=OptimizerConfig(lr=1e-3, betas=(0.9, 0.99), clip_norm=1.0, warmup=50_000, decay=0.5),
        ema=EmaConfig(target=0.97, evaluation=0.995),
        training=TrainingConfig(images=1_000_000, batch=1024),
        checkpoint=CheckpointConfig(every=500_000),
        log=LogConfig(every=50_000),
    )


VECTORS: dict[str, Callable[[], Config]] = {
    f"vectors-{name}": partial(vectors, method()) for name, method in OBJECTIVES.items()
}
