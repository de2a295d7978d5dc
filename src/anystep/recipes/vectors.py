"""Recipes for vectors, with an MLP: points in the plane (for figures and understanding), and your own."""

from collections.abc import Mapping

from anystep.data import Source
from anystep.networks import MLPConfig
from anystep.objectives import AlphaFlow, Objective, Shortcut
from anystep.run.config import CheckpointConfig, Config, EmaConfig, LogConfig, OptimizerConfig, TrainingConfig


def vectors(family: str, data: Source) -> Config:
    """Return the run of a shortcut model on vectors, unconditional unless the data has labels."""
    return Config(
        recipe=f"{family}-shortcut",
        data=data,
        network=MLPConfig(hidden=256, depth=4, step_encoding="log2"),
        objective=Shortcut(M=128, share=0.25, time="discrete"),
        optimizer=OptimizerConfig(lr=1e-3, betas=(0.9, 0.99), clip_norm=1.0, warmup=50_000, decay=0.5),
        ema=EmaConfig(target=0.97, evaluation=0.995),
        training=TrainingConfig(images=857_088, batch=1024),
        checkpoint=CheckpointConfig(every=500_000),
        log=LogConfig(every=50_000),
    )


#: What other methods do differently. alpha-Flow's floor is added to a squared error summed over an example, two
#: elements here: with the paper's 1e-3, for 4,096 elements, the last steps of alpha would have almost no weight.
VECTORS: Mapping[str, Objective] = {"alpha_flow": AlphaFlow(adaptive_floor=1e-6)}
