"""Methods, one per file, each imported when it is first used: their names in configs are the keys of `OBJECTIVES`."""

from typing import TYPE_CHECKING, Any

from anystep.core.random import Draw as Draw
from anystep.core.registry import Registry
from anystep.flow.query import PhaseProgress as PhaseProgress
from anystep.flow.query import Query as Query
from anystep.objectives.base import Batch as Batch
from anystep.objectives.base import Losses as Losses
from anystep.objectives.base import Networks as Networks
from anystep.objectives.base import Objective as Objective
from anystep.objectives.base import Targets as Targets

if TYPE_CHECKING:
    from anystep.objectives.alpha_flow import AlphaFlow as AlphaFlow
    from anystep.objectives.consistency_distillation import ConsistencyDistillation as ConsistencyDistillation
    from anystep.objectives.consistency_training import ConsistencyTraining as ConsistencyTraining
    from anystep.objectives.diffusion import Diffusion as Diffusion
    from anystep.objectives.flow_matching import FlowMatching as FlowMatching
    from anystep.objectives.ict import ImprovedConsistencyTraining as ImprovedConsistencyTraining
    from anystep.objectives.imm import IMM as IMM
    from anystep.objectives.improved_shortcut import ImprovedShortcut as ImprovedShortcut
    from anystep.objectives.live_reflow import LiveReflow as LiveReflow
    from anystep.objectives.mean_flow import MeanFlow as MeanFlow
    from anystep.objectives.progressive_distillation import ProgressiveDistillation as ProgressiveDistillation
    from anystep.objectives.reflow import Reflow as Reflow
    from anystep.objectives.shortcut import Shortcut as Shortcut

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
