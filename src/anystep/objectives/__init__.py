"""Methods, one per file, each imported when it is first used: their names in configs are the keys of `OBJECTIVES`."""

from typing import TYPE_CHECKING, Any

from anystep.core.random import Draw
from anystep.core.registry import Registry
from anystep.flow.query import PhaseProgress, Query
from anystep.objectives.base import Batch, Losses, Networks, Objective, Targets

if TYPE_CHECKING:
    from anystep.objectives.alpha_flow import AlphaFlow
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

OBJECTIVES: Registry[type[Objective]] = Registry(
    {
        "shortcut": "anystep.objectives.shortcut:Shortcut",
        "improved_shortcut": "anystep.objectives.improved_shortcut:ImprovedShortcut",
        "flow_matching": "anystep.objectives.flow_matching:FlowMatching",
        "diffusion": "anystep.objectives.diffusion:Diffusion",
        "reflow": "anystep.objectives.reflow:Reflow",
        "progressive_distillation": "anystep.objectives.progressive_distillation:ProgressiveDistillation",
        "consistency_distillation": "anystep.objectives.consistency_distillation:ConsistencyDistillation",
        "consistency_training": "anystep.objectives.consistency_training:ConsistencyTraining",
        "ict": "anystep.objectives.ict:ImprovedConsistencyTraining",
        "live_reflow": "anystep.objectives.live_reflow:LiveReflow",
        "mean_flow": "anystep.objectives.mean_flow:MeanFlow",
        "alpha_flow": "anystep.objectives.alpha_flow:AlphaFlow",
        "imm": "anystep.objectives.imm:IMM",
    }
)


def __getattr__(name: str) -> Any:
    return OBJECTIVES.attribute(__name__, name)


__all__ = [
    "IMM",
    "OBJECTIVES",
    "AlphaFlow",
    "Batch",
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
    "PhaseProgress",
    "ProgressiveDistillation",
    "Query",
    "Reflow",
    "Shortcut",
    "Targets",
]
