"""One network, any number of steps.

`anystep` trains generative models that sample in 1, 2, 4, ... 128 steps from a single run (shortcut models, Frans et
al. 2024) and the methods they are compared with. The public names are below; each loads when it is first used.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if "torch" not in sys.modules:
    # torch's threads sleep while they wait for each other. By default they spin, which slows a run next to other work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from anystep.comparison.compare import Choices, compare
    from anystep.core.errors import DataError, RunError, UsageError
    from anystep.data import Dataset, Digits, Folder, Hub, Npz, Source
    from anystep.evaluation.evaluate import evaluate
    from anystep.flow.ladder import Ladder, Step, instantaneous_schedule, shortcut_schedule
    from anystep.flow.sampling import interpolate_noise, refine, sample
    from anystep.interchange.reference import network_from_params
    from anystep.model.generator import Generator
    from anystep.model.load import load
    from anystep.networks import DiTConfig, MLPConfig, NetworkConfig, dit_preset
    from anystep.objectives import FlowMatching, Objective, Shortcut
    from anystep.recipes import find_recipe, with_method
    from anystep.run.config import Config
    from anystep.training.trainer import train

#: module -> public names that it has
_NAMES = {
    "comparison.compare": ("Choices", "compare"),
    "core.errors": ("DataError", "RunError", "UsageError"),
    "data": ("Dataset", "Digits", "Folder", "Hub", "Npz", "Source"),
    "evaluation.evaluate": ("evaluate",),
    "flow.ladder": ("Ladder", "Step", "instantaneous_schedule", "shortcut_schedule"),
    "flow.sampling": ("interpolate_noise", "refine", "sample"),
    "interchange.reference": ("network_from_params",),
    "model.generator": ("Generator",),
    "model.load": ("load",),
    "networks": ("DiTConfig", "MLPConfig", "NetworkConfig", "dit_preset"),
    "objectives": ("FlowMatching", "Objective", "Shortcut"),
    "recipes": ("find_recipe", "with_method"),
    "run.config": ("Config",),
    "training.trainer": ("train",),
}

__all__ = [
    "Choices",
    "Config",
    "DataError",
    "Dataset",
    "DiTConfig",
    "Digits",
    "FlowMatching",
    "Folder",
    "Generator",
    "Hub",
    "Ladder",
    "MLPConfig",
    "NetworkConfig",
    "Npz",
    "Objective",
    "RunError",
    "Shortcut",
    "Source",
    "Step",
    "UsageError",
    "compare",
    "dit_preset",
    "evaluate",
    "find_recipe",
    "instantaneous_schedule",
    "interpolate_noise",
    "load",
    "network_from_params",
    "refine",
    "sample",
    "shortcut_schedule",
    "train",
    "with_method",
]


def __getattr__(name: str) -> Any:
    for module, names in _NAMES.items():
        if name in names:
            return getattr(import_module(f"anystep.{module}"), name)
    raise AttributeError(f"module 'anystep' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
