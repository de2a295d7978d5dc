"""Recipes on the 8x8 digits that ship inside scikit-learn: minutes on two CPU cores."""

from collections.abc import Callable
from functools import partial

from anystep.data import Digits
from anystep.networks import DiTConfig
from anystep.objectives import OBJECTIVES, FlowMatching, Objective, Shortcut
from anystep.training.config import CheckpointConfig, Config, EmaConfig, LogConfig, OptimizerConfig, TrainingConfig

#: images that flow matching is trained on; the others get the same compute, images / cost
BUDGET = 280_000

#: what differs from a method's defaults on digits. 32 smallest steps are enough for 8x8 pixels; in a run this short a
#: share of 1/8 (the released code's) keeps many-step samples near flow matching's; t is continuous so that 64 and 128
#: steps at d = 0 find no time that was never trained. docs/methods/shortcut.md has what each choice is worth
CHOICES: dict[str, Objective] = {
    "shortcut": Shortcut(M=32, share=0.125, time="uniform"),
    "flow_matching": FlowMatching(time="uniform"),
}


def digits(objective: Objective) -> Config:
    """Return a class-conditional run of equal compute for every method: images in proportion to 1 / cost."""
    return Config(
        recipe=f"digits-{objective.name}",
        data=Digits(),
        network=DiTConfig(
            hidden=256, depth=4, heads=4, patch=4, step_encoding="log2" if objective.uses_step else "none"
        ),
        objective=objective,
        optimizer=OptimizerConfig(lr=2e-3, betas=(0.9, 0.99), clip_norm=1.0, warmup=25_600, decay=0.5),
        ema=EmaConfig(target=0.9, evaluation=0.995),
        training=TrainingConfig(images=round(BUDGET / objective.cost), batch=256),
        checkpoint=CheckpointConfig(every=51_200),
        log=LogConfig(every=5_120),
    )


DIGITS: dict[str, Callable[[], Config]] = {
    f"digits-{name}": partial(digits, CHOICES.get(name) or method()) for name, method in OBJECTIVES.items()
}
