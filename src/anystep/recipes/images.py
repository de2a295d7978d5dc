"""Recipes for your own images (a folder, arrays in an `.npz`, a Hugging Face / parquet data set), and for emoji.

`folder`, `npz` and `hub` want a GPU. Their `...32` forms are for a CPU, as is `emoji`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from anystep.codecs import Pixels
from anystep.data import Emoji, Source
from anystep.data.image_source import ImageSource
from anystep.flow.coupling import CouplingConfig
from anystep.flow.penalties import OwnErrorWeight
from anystep.networks import DiTConfig, dit_preset
from anystep.objectives import (
    AlphaFlow,
    ConsistencyDistillation,
    FlowMatching,
    ImprovedShortcut,
    LiveReflow,
    MeanFlow,
    Objective,
    ProgressiveDistillation,
    Reflow,
    Shortcut,
)
from anystep.run.config import CheckpointConfig, Config, EmaConfig, LogConfig, OptimizerConfig, TrainingConfig

#: the weight of self-consistency examples in short runs: none while the flow is learned, full once it is
LATE_WEIGHT = OwnErrorWeight(none_until=0.4, full_from=0.7)
#: noise paired with data within a class over 64 batches: shorter, straighter paths
BY_CLASS = CouplingConfig(batches=64, per_class=True)
#: shortcut models of short runs: more self-consistency examples, and half of them of large steps, once they count.
#: M = 32: each step size waits for the next smaller one, and M = 128 has two more.
LATE: Mapping[str, Any] = {
    "M": 32,
    "time": "uniform",
    "level": "large",
    "share": 0.25,
    "share_start": 0.125,
    "share_change": (0.4, 0.7),
}
LATE_SHORTCUT = Shortcut(**LATE)
#: three equal terms have few examples for the velocity, and scales up to 4.5 few at 1: both were worse in trials
LATE_IMPROVED = ImprovedShortcut(**LATE, guided_share=0.0625, guidance_max=3.0, plain_share=0.5)


def images(data: ImageSource) -> Config:
    """Return the run of a shortcut model on images of any size, a DiT-S/4; `--data.size` resizes them.

    The objective is that of Frans et al. 2024.
    """
    return Config(
        recipe=f"{data.name}-shortcut",
        data=data,
        codec=Pixels(),
        network=dit_preset("S/4", step_encoding="log2"),
        objective=Shortcut(M=128, share=0.25, time="discrete"),
        optimizer=OptimizerConfig(lr=3e-4, clip_norm=1.0, warmup=50_000),
        ema=EmaConfig(target=0.99, evaluation=0.9995),
        training=TrainingConfig(images=17_142_912, batch=128, matmul_precision="high"),
        checkpoint=CheckpointConfig(every=500_000),
        log=LogConfig(every=25_600),
    )


def images32(data: Source) -> Config:
    """Return the run of a shortcut model on images of 32 x 32 pixels, for a CPU.

    A small DiT on 64 patches, small batches and a high learning rate: short runs want many updates. For better images
    train longer, `--images`, and on a GPU with a larger network, e.g. `--network.hidden 384 --network.depth 12`.
    """
    return Config(
        recipe=f"{data.name}32-shortcut",
        data=data,
        codec=Pixels(),
        network=DiTConfig(hidden=192, depth=4, heads=4, patch=4, step_encoding="log2"),
        objective=LATE_SHORTCUT,
        weight=LATE_WEIGHT,
        coupling=BY_CLASS,
        optimizer=OptimizerConfig(lr=2e-3, betas=(0.9, 0.99), clip_norm=1.0, warmup=4_096, decay=0.5),
        ema=EmaConfig(target=0.95, evaluation=0.998),
        training=TrainingConfig(images=85_664, batch=32, matmul_precision="high"),
        checkpoint=CheckpointConfig(every=16_000),
        log=LogConfig(every=1_600),
    )


def emoji() -> Config:
    """Return the run of a shortcut model on Noto emoji, conditioned on the class; half an hour on one core."""
    config = images32(Emoji())
    return replace(config, recipe="emoji-shortcut", training=replace(config.training, images=107_072))


#: What other methods do differently on pixels. With the times for latents, normal(0.4, 1), a step of d > 0.9 is one in
#: 70,000: one-step sampling is hardly trained. MeanFlow's authors have these settings on CIFAR-10; the mean is -2 of
#: their time, which is 1 - t. alpha-Flow takes the same distribution of times.
PIXELS: Mapping[str, Objective] = {
    "mean_flow": MeanFlow(share=0.75, time_mean=2.0, time_std=2.0, adaptive_power=0.75),
    "alpha_flow": AlphaFlow(time_mean=2.0, time_std=2.0),
}

#: What other methods do differently in short runs on small images: digits, and 32 x 32 pixels. t is continuous: 64 and
#: 128 steps at d = 0 then use no time that was never trained.
SHORT: Mapping[str, Objective] = {
    **PIXELS,
    "improved_shortcut": LATE_IMPROVED,
    "flow_matching": FlowMatching(time="uniform"),
    "reflow": Reflow(pair_steps=32, time="uniform"),
    "progressive_distillation": ProgressiveDistillation(M=32, time="uniform"),
    "consistency_distillation": ConsistencyDistillation(M=32, time="uniform"),
    "live_reflow": LiveReflow(time="uniform"),
}
