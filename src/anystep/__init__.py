"""One network, any number of steps.

`anystep` trains generative models that sample in 1, 2, 4, ... 128 steps from a single run (shortcut models, Frans et
al. 2024) and the methods they are compared with. The names below are the public interface; they load when first used.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if "torch" not in sys.modules:
    # Threads of torch that wait for others sleep. By default they spin, which slows a run beside a busy process.
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

#: public name -> module that has it
_HOME = {
    "Choices": "comparison.compare",
    "Config": "run.config",
    "DataError": "core.errors",
    "Dataset": "data",
    "DiTConfig": "networks",
    "Digits": "data",
    "FlowMatching": "objectives",
    "Folder": "data",
    "Generator": "model.generator",
    "Hub": "data",
    "Ladder": "flow.ladder",
    "MLPConfig": "networks",
    "NetworkConfig": "networks",
    "Npz": "data",
    "Objective": "objectives",
    "RunError": "core.errors",
    "Shortcut": "objectives",
    "Source": "data",
    "Step": "flow.ladder",
    "UsageError": "core.errors",
    "compare": "comparison.compare",
    "dit_preset": "networks",
    "evaluate": "evaluation.evaluate",
    "find_recipe": "recipes",
    "instantaneous_schedule": "flow.ladder",
    "interpolate_noise": "flow.sampling",
    "load": "model.load",
    "network_from_params": "interchange.reference",
    "refine": "flow.sampling",
    "sample": "flow.sampling",
    "shortcut_schedule": "flow.ladder",
    "train": "training.trainer",
    "with_method": "recipes",
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
    if name in _HOME:
        return getattr(import_module(f"anystep.{_HOME[name]}"), name)
    raise AttributeError(f"module 'anystep' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
