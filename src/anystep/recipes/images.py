"""Recipes for one's own pictures: a folder, arrays in an `.npz`, or a Hugging Face / parquet data set."""

from dataclasses import replace

from anystep.codecs import Pixels
from anystep.data import SOURCES
from anystep.networks import DiTConfig, dit_preset
from anystep.objectives import FlowMatching
from anystep.recipes.method import Family
from anystep.recipes.short import SHORT
from anystep.run.config import CheckpointConfig, Config, EmaConfig, LogConfig, OptimizerConfig, TrainingConfig

#: source -> where its pictures are expected unless --data.path says otherwise
PATHS = {"folder": "images", "npz": "images.npz", "hub": "images.parquet"}


def images(source: str) -> Family:
    """Return DiT-S/4 runs on one's own pictures: `--data.path` says where, `--data.size` resizes, the rest is P1's."""
    base = Config(
        recipe=f"{source}-flow_matching",
        data=SOURCES[source](path=PATHS[source]),  # type: ignore[call-arg]
        codec=Pixels(),
        network=dit_preset("S/4", step_encoding="none"),
        objective=FlowMatching(),
        optimizer=OptimizerConfig(lr=3e-4, clip_norm=1.0, warmup=50_000),
        ema=EmaConfig(target=0.99, evaluation=0.9995),
        # P1 computes in bfloat16. A recipe does not know its device, and a CPU without bfloat16 units is slower in it
        # than in float32; TF32 is used where there is any. On a GPU add --training.precision bfloat16.
        training=TrainingConfig(images=20_000_000, batch=128, matmul_precision="high"),
        checkpoint=CheckpointConfig(every=500_000),
        log=LogConfig(every=25_600),
    )
    return Family(base, {})


def small_images(source: str) -> Family:
    """Return runs of a small DiT (9.7 M parameters) on pictures of 32 pixels a side."""
    base = images(source).base
    return Family(
        replace(
            base,
            recipe=f"{source}32-flow_matching",
            data=replace(base.data, size=32),  # type: ignore[call-arg]
            network=DiTConfig(hidden=256, depth=8, heads=4, patch=2, step_encoding="none"),
            optimizer=OptimizerConfig(lr=1e-3, betas=(0.9, 0.99), clip_norm=1.0, warmup=50_000, decay=0.5),
            ema=EmaConfig(target=0.95, evaluation=0.999),
            training=replace(base.training, images=3_000_000),
            objective=SHORT["flow_matching"],
        ),
        SHORT,
    )
