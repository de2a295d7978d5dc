"""Recipes for vectors, learned by an MLP: points in the plane (for figures and understanding), and one's own."""

from collections.abc import Callable
from functools import partial

from anystep.data import Checkerboard, EightGaussians, Npz, Source, TwoMoons
from anystep.networks import MLPConfig
from anystep.objectives import OBJECTIVES, Objective
from anystep.training.config import CheckpointConfig, Config, EmaConfig, LogConfig, OptimizerConfig, TrainingConfig

#: where one's own vectors are expected unless --data.path says otherwise
PATH = "vectors.npz"
SETS: dict[str, Source] = {
    "two_moons": TwoMoons(),
    "eight_gaussians": EightGaussians(),
    "checkerboard": Checkerboard(),
    "vectors": Npz(path=PATH, images="vectors"),
}


def vectors(family: str, objective: Objective) -> Config:
    """Return an MLP's run on a set of vectors, unconditional unless the set has labels."""
    return Config(
        recipe=f"{family}-{objective.name}",
        data=SETS[family],
        network=MLPConfig(step_encoding="log2" if objective.uses_step else "none"),
        objective=objective,
        optimizer=OptimizerConfig(lr=1e-3, betas=(0.9, 0.99), clip_norm=1.0, warmup=50_000, decay=0.5),
        ema=EmaConfig(target=0.97, evaluation=0.995),
        training=TrainingConfig(images=1_000_000, batch=1024),
        checkpoint=CheckpointConfig(every=500_000),
        log=LogConfig(every=50_000),
    )


VECTORS: dict[str, Callable[[], Config]] = {
    f"{family}-{name}": partial(vectors, family, method()) for family in SETS for name, method in OBJECTIVES.items()
}
