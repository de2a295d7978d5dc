"""Recipes on the 8x8 digits that ship inside scikit-learn: minutes on two CPU cores."""

from anystep.codecs import Pixels
from anystep.data import Digits
from anystep.networks import DiTConfig
from anystep.objectives import AlphaFlow, ImprovedShortcut, Objective, Shortcut
from anystep.recipes.method import Family
from anystep.recipes.short import SHORT
from anystep.run.config import CheckpointConfig, Config, EmaConfig, LogConfig, OptimizerConfig, TrainingConfig

#: what differs from `SHORT`; docs/methods/shortcut.md has what each choice is worth. The released code's share of 1/8
#: keeps many-step samples near flow matching's. Classes as separate as these have a use for small scales of guidance
#: only. alpha-Flow's floor is the paper's times 64 of its 4,096 elements
CHOICES: dict[str, Objective] = {
    **SHORT,
    "shortcut": Shortcut(M=32, share=0.125, time="uniform"),
    "improved_shortcut": ImprovedShortcut(M=32, share=0.125, guided_share=0.125, guidance_max=2.0, time="uniform"),
    "alpha_flow": AlphaFlow(adaptive_floor=1e-5),
}


def digits() -> Family:
    """Return class-conditional runs; the others cost what flow matching's 280,000 images cost."""
    base = Config(
        recipe="digits-flow_matching",
        data=Digits(),
        codec=Pixels(),
        network=DiTConfig(hidden=256, depth=4, heads=4, patch=4, step_encoding="none"),
        objective=CHOICES["flow_matching"],
        optimizer=OptimizerConfig(lr=2e-3, betas=(0.9, 0.99), clip_norm=1.0, warmup=25_600, decay=0.5),
        ema=EmaConfig(target=0.9, evaluation=0.995),
        training=TrainingConfig(images=280_000, batch=256),
        checkpoint=CheckpointConfig(every=51_200),
        log=LogConfig(every=5_120),
    )
    return Family(base, CHOICES)
