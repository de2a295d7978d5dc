"""The recipe for the 8x8 digits of scikit-learn: minutes on two CPU cores."""

from collections.abc import Mapping

from anystep.codecs import Pixels
from anystep.data import Digits
from anystep.networks import DiTConfig
from anystep.objectives import AlphaFlow, ImprovedShortcut, Objective, Shortcut
from anystep.recipes.images import SHORT
from anystep.run.config import CheckpointConfig, Config, EmaConfig, LogConfig, OptimizerConfig, TrainingConfig


def digits() -> Config:
    """Return the run of a shortcut model on 8x8 digits, conditioned on the class.

    Expected Frechet distance, 2,048 samples, seed 0: 0.87, 0.52, 0.34, 0.28, 0.24 and 0.20 in 1, 2, 4, 8, 32 and 128
    steps, and a recall of 0.65 in one step (docs/methods/shortcut.md, which also shows the effect of each choice).
    """
    return Config(
        recipe="digits-shortcut",
        data=Digits(),
        codec=Pixels(),
        network=DiTConfig(hidden=256, depth=4, heads=4, patch=4, step_encoding="log2"),
        # 1/8 of each batch for self-consistency, as in the authors' code: many steps stay close to flow matching's
        objective=Shortcut(M=32, share=0.125, time="uniform"),
        optimizer=OptimizerConfig(lr=2e-3, betas=(0.9, 0.99), clip_norm=1.0, warmup=25_600, decay=0.5),
        # each step size learns from the next smaller one, and lags behind it: in 1,010 updates a short target EMA helps
        ema=EmaConfig(target=0.9, evaluation=0.995),
        training=TrainingConfig(images=258_560, batch=256),
        checkpoint=CheckpointConfig(every=51_200),
        log=LogConfig(every=5_120),
    )


#: What other methods do differently on digits. Classes as separate as these need small guidance scales only.
#: alpha-Flow's floor is the paper's times 64 of its 4,096 elements.
DIGITS: Mapping[str, Objective] = {
    **SHORT,
    "improved_shortcut": ImprovedShortcut(M=32, share=0.125, guided_share=0.125, guidance_max=2.0, time="uniform"),
    "alpha_flow": AlphaFlow(time_mean=2.0, time_std=2.0, adaptive_floor=1e-5),
}
