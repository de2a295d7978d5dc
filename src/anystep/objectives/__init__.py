"""Methods, one a file. `OBJECTIVES` is the one registry: a name in a config, a recipe or a table is a key of it."""

from anystep.objectives.base import Batch, Draw, Losses, Networks, Objective, Progress, Query, Targets
from anystep.objectives.flow_matching import FlowMatching
from anystep.objectives.shortcut import Shortcut

OBJECTIVES: dict[str, type[Objective]] = {method.name: method for method in (Shortcut, FlowMatching)}

__all__ = [
    "OBJECTIVES",
    "Batch",
    "Draw",
    "FlowMatching",
    "Losses",
    "Networks",
    "Objective",
    "Progress",
    "Query",
    "Shortcut",
    "Targets",
]
