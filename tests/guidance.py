"""Guidance as a generator looks it up: one rule a step, then the scales of all steps."""

from anystep.flow.guidance import guidance_scales
from anystep.flow.ladder import Schedule
from anystep.objectives import Objective


def scales(method: Objective, schedule: Schedule, guidance: float | None, twice: bool = False) -> list[float]:
    """Return the scale W of each step."""
    return guidance_scales([method.guidance_rule(step) for step in schedule], guidance, twice)[0]


def warnings(method: Objective, schedule: Schedule, guidance: float | None, twice: bool = False) -> list[str]:
    """Return what a person is told about them."""
    return guidance_scales([method.guidance_rule(step) for step in schedule], guidance, twice)[1]
