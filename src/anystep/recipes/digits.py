"""The recipe for the 8x8 digits of scikit-learn: minutes on two CPU cores."""

from collections.abc import Mapping
from dataclasses import replace

from anystep.codecs import Pixels
from anystep.data import Digits
from anystep.networks import DiTConfig
from anystep.objectives import AlphaFlow, Objective
from anystep.recipes.images import BY_CLASS, LATE_IMPROVED, LATE_SHORTCUT, LATE_WEIGHT, SHORT
from anystep.run.config import CheckpointConfig, Config, EmaConfig, LogConfig, OptimizerConfig, TrainingConfig


def digits() -> Config:
    """Return the run of a shortcut model on 8x8 digits, conditioned on the class.

    Every choice beyond the paper was tried (docs/methods/one_step.md).
    """
    return Config(
        recipe="digits-shortcut",
        data=Digits(),
        codec=Pixels(),
        network=DiTConfig(hidden=128, depth=4, heads=4, patch=4, step_encoding="log2"),
        objective=LATE_SHORTCUT,
        weight=LATE_WEIGHT,
        coupling=replace(BY_CLASS, batches=32),
        optimizer=OptimizerConfig(lr=3e-3, betas=(0.9, 0.99), clip_norm=1.0, warmup=12_800, decay=0.5),
        # each step size learns from the next smaller one, and lags behind it: a short target EMA helps
        ema=EmaConfig(target=0.9, evaluation=0.995),
        training=TrainingConfig(images=249_856, batch=128),
        checkpoint=CheckpointConfig(every=51_200),
        log=LogConfig(every=5_120),
    )


#: What other methods do differently on digits. Classes as separate as these need small guidance scales only.
#: alpha-Flow's floor is the paper's times 64 of its 4,096 elements.
DIGITS: Mapping[str, Objective] = {
    **SHORT,
    "improved_shortcut": replace(LATE_IMPROVED, guidance_max=2.0),
    "alpha_flow": AlphaFlow(time_mean=2.0, time_std=2.0, adaptive_floor=1e-5),
}
