"""Recipes for vectors, learned by an MLP: points in the plane (for figures and understanding), and one's own."""

from anystep.data import Checkerboard, EightGaussians, Npz, Source, TwoMoons
from anystep.networks import MLPConfig
from anystep.objectives import AlphaFlow, FlowMatching, Objective
from anystep.recipes.method import Family
from anystep.run.config import CheckpointConfig, Config, EmaConfig, LogConfig, OptimizerConfig, TrainingConfig

#: where one's own vectors are expected unless --data.path says otherwise
PATH = "vectors.npz"
SETS: dict[str, Source] = {
    "two_moons": TwoMoons(),
    "eight_gaussians": EightGaussians(),
    "checkerboard": Checkerboard(),
    "vectors": Npz(path=PATH, images="vectors"),
}


#: alpha-Flow's floor is added to a squared error summed over a row, two elements here: with the paper's 1e-3, for 4,096
#: elements, the last steps of alpha would weigh nothing
CHOICES: dict[str, Objective] = {"alpha_flow": AlphaFlow(adaptive_floor=1e-6)}


def vectors(family: str) -> Family:
    """Return an MLP's runs on a set of vectors, unconditional unless the set has labels."""
    base = Config(
        recipe=f"{family}-flow_matching",
        data=SETS[family],
        network=MLPConfig(step_encoding="none"),
        objective=FlowMatching(),
        optimizer=OptimizerConfig(lr=1e-3, betas=(0.9, 0.99), clip_norm=1.0, warmup=50_000, decay=0.5),
        ema=EmaConfig(target=0.97, evaluation=0.995),
        training=TrainingConfig(images=1_000_000, batch=1024),
        checkpoint=CheckpointConfig(every=500_000),
        log=LogConfig(every=50_000),
    )
    return Family(base, CHOICES)
