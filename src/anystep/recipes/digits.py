"""Recipes on the 8x8 digits that ship inside scikit-learn: minutes on two CPU cores."""

from collections.abc import Callable
from functools import partial

from anystep.data import Digits
from anystep.networks import DiTConfig
from anystep.objectives import FlowMatching, Objective, Shortcut
from anystep.training.config import CheckpointConfig, Config, EmaConfig, LogConfig, OptimizerConfig, TrainingConfig

#: images of the shortcut run; other methods get the same compute, images * cost
BUDGET = 400_000

#: each method with what differs from its defaults on digits
METHODS: dict[str, Objective] = {"shortcut": Shortcut(), "flow_matching": FlowMatching()}


def digits(objective: Objective) -> Config:
    """Return a class-conditional run of equal compute for every method: images in proportion to 1 / cost."""
    images = round(BUDGET * METHODS["shortcut"].cost / objective.cost)
    return Config(
        recipe=f"digits-{objective.name}",
        data=Digits(),
        network=DiTConfig(
            hidden=256, depth=4, heads=4, patch=4, step_encoding="log2" if objective.uses_step else "none"
        ),
        objective=objective,
        optimizer=OptimizerConfig(lr=2e-3, betas=(0.9, 0.99), clip_norm=1.0, warmup=25_600),
        ema=EmaConfig(target=0.97, evaluation=0.995),
        training=TrainingConfig(images=images, batch=256),
        checkpoint=CheckpointConfig(every=100_000),
        log=LogConfig(every=5_120),
    )


DIGITS: dict[str, Callable[[], Config]] = {
    f"digits-{name}": partial(digits, method) for name, method in METHODS.items()
}
