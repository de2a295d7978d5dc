"""Recipes for one's own pictures: a folder, arrays in an `.npz`, or a Hugging Face / parquet data set."""

from collections.abc import Callable
from functools import partial

from anystep.data import SOURCES
from anystep.networks import dit_preset
from anystep.objectives import OBJECTIVES, Objective
from anystep.training.config import CheckpointConfig, Config, EmaConfig, LogConfig, OptimizerConfig, TrainingConfig

#: source -> where its pictures are expected unless --data.path says otherwise
PATHS = {"folder": "images", "npz": "images.npz", "hub": "images.parquet"}


def images(source: str, objective: Objective) -> Config:
    """Return a DiT-S/4 run on one's own pictures: `--data.path` says where, `--data.size` resizes, the rest is P1's."""
    return Config(
        recipe=f"{source}-{objective.name}",
        data=SOURCES[source](path=PATHS[source]),  # type: ignore[call-arg]
        network=dit_preset("S/4", step_encoding="log2" if objective.uses_step else "none"),
        objective=objective,
        optimizer=OptimizerConfig(lr=3e-4, clip_norm=1.0, warmup=50_000),
        ema=EmaConfig(target=0.99, evaluation=0.9995),
        # P1 computes in bfloat16. A recipe does not know its device, and a CPU without bfloat16 units is slower in it
        # than in float32; TF32 is used where there is any. On a GPU add --training.precision bfloat16.
        training=TrainingConfig(images=20_000_000, batch=128, matmul_precision="high"),
        checkpoint=CheckpointConfig(every=500_000),
        log=LogConfig(every=25_600),
    )


IMAGES: dict[str, Callable[[], Config]] = {
    f"{source}-{name}": partial(images, source, method()) for source in PATHS for name, method in OBJECTIVES.items()
}
