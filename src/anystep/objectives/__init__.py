"""Methods, one a file. `OBJECTIVES` is the one registry: a name in a config, a recipe or a table is a key of it."""

from anystep.core.random import Draw
from anystep.objectives.alpha_flow import AlphaFlow
from anystep.objectives.base import Batch, Charge, Losses, Networks, Objective, Progress, Query, Targets
from anystep.objectives.consistency_distillation import ConsistencyDistillation
from anystep.objectives.consistency_training import ConsistencyTraining
from anystep.objectives.diffusion import Diffusion
from anystep.objectives.flow_matching import FlowMatching
from anystep.objectives.ict import ImprovedConsistencyTraining
from anystep.objectives.imm import IMM
from anystep.objectives.improved_shortcut import ImprovedShortcut
from anystep.objectives.live_reflow import LiveReflow
from anystep.objectives.mean_flow import MeanFlow
from anystep.objectives.progressive_distillation import ProgressiveDistillation
from anystep.objectives.reflow import Reflow
from anystep.objectives.shortcut import Shortcut

OBJECTIVES: dict[str, type[Objective]] = {
    method.name: method
    for method in (
        Shortcut,
        ImprovedShortcut,
        FlowMatching,
        Diffusion,
        Reflow,
        ProgressiveDistillation,
        ConsistencyDistillation,
        ConsistencyTraining,
        ImprovedConsistencyTraining,
        LiveReflow,
        MeanFlow,
        AlphaFlow,
        IMM,
    )
}

__all__ = [
    "IMM",
    "OBJECTIVES",
    "AlphaFlow",
    "Batch",
    "Charge",
    "ConsistencyDistillation",
    "ConsistencyTraining",
    "Diffusion",
    "Draw",
    "FlowMatching",
    "ImprovedConsistencyTraining",
    "ImprovedShortcut",
    "LiveReflow",
    "Losses",
    "MeanFlow",
    "Networks",
    "Objective",
    "Progress",
    "ProgressiveDistillation",
    "Query",
    "Reflow",
    "Shortcut",
    "Targets",
]
