"""What guidance a person may sample with, method by method: the rules of version 0.1.0, and what they are told."""

from dataclasses import replace

import pytest
from tests.guidance import scales, warnings

from anystep.core.errors import UsageError
from anystep.flow.guidance import GuidanceRule, guidance_scales
from anystep.flow.ladder import Schedule
from anystep.objectives import (
    OBJECTIVES,
    ConsistencyDistillation,
    LiveReflow,
    Objective,
    ProgressiveDistillation,
    Reflow,
    Shortcut,
)

STUDENTS = (ProgressiveDistillation, ConsistencyDistillation)
METHODS: list[Objective] = [
    *(method() for method in OBJECTIVES.values()),
    *(method(label_drop=0.0) for method in OBJECTIVES.values()),
    *(method(guidance=1.5) for method in (Shortcut, LiveReflow, Reflow, *STUDENTS)),
    Shortcut(guidance=1.5, interval=0.5),
    Shortcut(label_drop_rows="all"),
]
methods = pytest.mark.parametrize("method", METHODS, ids=str)


def as_in_0_1_0(method: Objective, schedule: Schedule, guidance: float | None, twice: bool) -> list[float] | str:
    """Return the scale of each step, or why it is refused."""
    if guidance is None:
        if isinstance(method, Shortcut):
            return [method.guidance if step.d == 0 and step.t >= method.interval else 1.0 for step in schedule]
        if isinstance(method, LiveReflow):
            return [method.guidance if step.d == 0 else 1.0 for step in schedule]
        guidance = 1.0
    if guidance != 1 and not twice:
        built_in = getattr(method, "guidance", 1) != 1
        if isinstance(method, STUDENTS) or method.label_drop == 0:
            return "never trained"
        if built_in and (isinstance(method, Reflow) or any(step.d > 0 for step in schedule)):
            return "guide twice"
    return [guidance] * len(schedule)


@methods
@pytest.mark.parametrize("steps", [1, 3, 128])
@pytest.mark.parametrize("twice", [False, True])
def test_scales_and_refusals_are_those_of_0_1_0(method: Objective, steps: int, twice: bool) -> None:
    schedule = method.schedule(steps)
    for guidance in (None, 0.0, 1.0, 1.5, 3.0, -1.0):
        expected = as_in_0_1_0(method, schedule, guidance, twice)
        if isinstance(expected, str):
            with pytest.raises(UsageError, match=expected):
                scales(method, schedule, guidance, twice)
        else:
            assert scales(method, schedule, guidance, twice) == expected


@methods
def test_whoever_insists_on_an_untrained_null_condition_is_told(method: Objective) -> None:
    """Never trained: no dropped labels, or a student. At d = 0 only: as released, and live reflow's one step."""
    for steps in (1, 128):
        schedule = method.schedule(steps)
        assert warnings(method, schedule, None) == warnings(method, schedule, 1.0, twice=True) == []
        told = warnings(method, schedule, 2.0, twice=True)
        if isinstance(method, STUDENTS) or method.label_drop == 0:
            assert told == ["guidance 2 uses the null condition, which was never trained"]
        elif steps == 1 and isinstance(method, LiveReflow | Shortcut) and method != Shortcut(label_drop_rows="all"):
            assert len(told) == 1 and "trained at d = 0 only, not at these steps" in told[0]
        else:
            assert told == []


@methods
def test_a_refusal_names_what_to_train_with(method: Objective) -> None:
    """A student's labels are never dropped, whatever label_drop is: guidance is built into it instead."""
    without = replace(method, label_drop=0.0)
    remedy = r"objective\.guidance above 1 to build it in" if isinstance(method, STUDENTS) else r"objective\.label_drop"
    if getattr(method, "guidance", 1) != 1:
        remedy = r"training built in guidance 1\.5"
    with pytest.raises(UsageError, match=rf"^guidance 2 needs the null condition, which was never trained: .*{remedy}"):
        scales(without, method.schedule(1), 2.0)


@methods
@pytest.mark.parametrize("guidance", [float("nan"), float("inf")])
def test_a_scale_is_finite(method: Objective, guidance: float) -> None:
    for twice in (False, True):
        with pytest.raises(ValueError, match=f"guidance must be finite, got {guidance}"):
            scales(method, method.schedule(2), guidance, twice)


def test_one_step_that_is_guided_already_refuses_the_whole_budget() -> None:
    plain, guided = GuidanceRule(as_trained=1.5), GuidanceRule(built_in=1.5)
    assert guidance_scales([plain, guided], None) == ([1.5, 1.0], [])
    with pytest.raises(
        UsageError, match=r"1\.5 is already built into 1 of these 2 steps: guiding by 3 would guide twice"
    ):
        guidance_scales([plain, guided], 3.0)
    assert guidance_scales([plain, guided], 3.0, twice=True) == ([3.0, 3.0], [])
