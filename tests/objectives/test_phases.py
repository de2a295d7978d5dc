"""The parts of a run of each distillation: their names, lengths and costs, and what a person is refused or told."""

from collections.abc import Callable

import pytest
import torch
from tests.guidance import scales, warnings
from tests.paper.smooth import Smooth, smooth_batch
from tests.toys import WithNull
from torch import Tensor

from anystep.core.random import Draw, Keys
from anystep.flow.condition import UNCONDITIONAL, class_labels
from anystep.flow.query import PhaseProgress
from anystep.objectives import OBJECTIVES
from anystep.objectives.base import Batch, Networks, Objective, Pairs, Phase
from anystep.objectives.consistency_distillation import ConsistencyDistillation
from anystep.objectives.flow_matching import FlowMatching
from anystep.objectives.live_reflow import LiveReflow
from anystep.objectives.progressive_distillation import ProgressiveDistillation
from anystep.objectives.reflow import Reflow

DISTILLATIONS = [ProgressiveDistillation, ConsistencyDistillation, Reflow]
ALL = [*DISTILLATIONS, LiveReflow]


class Counting(WithNull):
    """A velocity field that counts the rows that it is asked for."""

    num_classes = 10

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance=None) -> Tensor:
        self.rows += len(x)
        return torch.zeros_like(x)


def units(phase: Phase, rows: int = 80) -> float:
    """Forward passes that an update of ``rows`` asks for, the online network's backward ones counted as two more."""
    networks = Networks(Counting(), Counting(), Counting())
    draw = Draw(Keys(0), 0, rows, slice(0, rows))
    batch = Batch(draw.normal("data", (2,)), draw.normal("noise", (2,)), torch.arange(rows) % 10)
    phase.objective.loss(networks, batch, draw, PhaseProgress(0, 1, phase.index))
    return 2 * rows + sum(network.rows for network in (networks.online, networks.target, networks.teacher))


@pytest.mark.parametrize("guidance", [0.0, 1.0, 1.5])
@pytest.mark.parametrize("method", ALL)
def test_every_phase_costs_what_the_networks_are_asked_for(method: Callable[..., Objective], guidance: float) -> None:
    for phase in method(guidance=guidance).phases():
        assert units(phase) / (3 * 80) == pytest.approx(phase.cost), phase.name


def test_costs_are_those_of_the_papers_set_up() -> None:
    """Two teacher passes a row: 5/3 of flow matching; with guidance twice as many, in the first halving only."""
    assert [phase.cost for phase in ProgressiveDistillation().phases()] == pytest.approx([1] + 7 * [5 / 3])
    assert [phase.cost for phase in ProgressiveDistillation(guidance=1.5).phases()] == pytest.approx(
        [1, 7 / 3] + 6 * [5 / 3]
    )
    assert ConsistencyDistillation().cost == pytest.approx(5 / 3)
    assert Reflow().phases()[1].pairs == Pairs(50_000, 128, 1.0)
    assert Reflow(guidance=1.5).phases()[1].pairs.forward_passes == 2 * 128 * 50_000
    assert LiveReflow().cost == pytest.approx((3 + 8 / 4) / 3)


@pytest.mark.parametrize("method", DISTILLATIONS)
@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_first_phase_trains_the_teacher_with_its_own_settings(method: Callable[..., Objective], share) -> None:
    chosen = {"time": "uniform", "M": 16, "label_drop": 0.3, "sigma_min": 0.1}
    teacher, *others = method(teacher_share=share, **chosen).phases()
    assert teacher == Phase("teacher", FlowMatching(**chosen), share, cost=1.0, teaches=True)
    assert not any(phase.teaches for phase in others)
    assert sum(phase.share for phase in others) == pytest.approx(1 - share)


def test_the_steps_are_halved_in_phases_of_equal_length() -> None:
    """Frans et al. 2024 counts 8 phases, but 128 steps are halved seven times."""
    method = ProgressiveDistillation(M=128)
    phases = method.phases()[1:]
    assert [phase.name for phase in phases] == ["1/64", "1/32", "1/16", "1/8", "1/4", "1/2", "1"]
    assert [phase.index for phase in phases] == list(range(7))
    assert {phase.share for phase in phases} == {0.5 / 7}
    assert [phase.name for phase in ProgressiveDistillation(M=2).phases()] == ["teacher", "1"]
    assert method.tags == ("flow", *(phase.name for phase in phases))


@pytest.mark.parametrize("method", OBJECTIVES)
def test_only_a_scheduled_method_cares_how_long_the_run_is(method: str) -> None:
    objective, (batch, draw) = OBJECTIVES[method](), smooth_batch(64)
    networks = Networks(Smooth.make(1), Smooth.make(2), Smooth.make(3))
    short, long = (objective.loss(networks, batch, draw, PhaseProgress(6, steps)).rows for steps in (10, 1000))
    assert torch.equal(short, long) is not objective.scheduled


def test_live_reflow_is_one_phase() -> None:
    (phase,) = LiveReflow().phases()
    assert phase.cost == LiveReflow().cost and not phase.teaches and phase.pairs is None


def test_live_reflow_asks_for_no_step_that_it_did_not_train() -> None:
    method = LiveReflow(guidance=1.5)
    (one,) = method.schedule(1)
    assert (one.t, one.length, one.d) == (0, 1, 1)
    for steps in (2, 3, 64, 200):
        plan = method.schedule(steps)
        assert {step.d for step in plan} == {0} and sum(step.length for step in plan) == pytest.approx(1)
        assert scales(method, plan, None) == [1.5] * steps  # d = 0 was not trained with guidance
        assert scales(method, plan, 3.0) == [3.0] * steps
    assert scales(method, [one], None) == [1.0]
    with pytest.raises(ValueError, match="would guide twice"):
        scales(method, [one], 1.5)
    assert scales(method, [one], 1.5, twice=True) == [1.5]


def test_a_null_label_of_live_reflow_is_trained_at_zero_only() -> None:
    method = LiveReflow()
    (warning,) = warnings(method, method.schedule(1), 2.0)
    assert warning.startswith("guidance 2 uses the null condition, which was trained at d = 0 only, not at these steps")
    assert warnings(method, method.schedule(4), 2.0) == warnings(method, method.schedule(1), None) == []
    with pytest.raises(ValueError, match=r"which was never trained: train with objective\.label_drop 0\.1"):
        scales(LiveReflow(label_drop=0.0), method.schedule(1), 2.0)
    (warning,) = warnings(LiveReflow(label_drop=0.0), method.schedule(1), 2.0, twice=True)
    assert warning == "guidance 2 uses the null condition, which was never trained"


def test_a_one_step_network_is_not_asked_for_more_without_a_word() -> None:
    method = ProgressiveDistillation()
    assert method.caution(method.schedule(1), None) is None
    assert "4 steps are not what it learned" in str(method.caution(method.schedule(4), None))


@pytest.mark.parametrize("method", [ProgressiveDistillation(), ConsistencyDistillation(guidance=1.5)])
def test_students_that_kept_their_labels_have_no_null_label_to_guide_by(method: Objective) -> None:
    plan = method.schedule(2)
    assert scales(method, plan, None) == scales(method, plan, 1.0) == [1.0, 1.0]
    hint = r"training built in guidance 1\.5" if method.guidance == 1.5 else r"train with objective\.guidance above 1"
    with pytest.raises(ValueError, match=rf"guidance 1\.5 needs the null condition, which was never trained: {hint}"):
        scales(method, plan, 1.5)
    assert scales(method, plan, 1.5, twice=True) == [1.5, 1.5]
    assert warnings(method, plan, 1.5, twice=True) == ["guidance 1.5 uses the null condition, which was never trained"]


def test_reflow_is_not_guided_twice() -> None:
    plain, built_in = Reflow(), Reflow(guidance=1.5)
    plan = plain.schedule(2)
    assert scales(plain, plan, 1.5) == [1.5, 1.5]
    assert scales(built_in, plan, None) == [1.0, 1.0]
    with pytest.raises(ValueError, match=r"1\.5 is already built into these steps: guiding by 1\.5 would guide"):
        scales(built_in, plan, 1.5)
    for method in (Reflow(label_drop=0.0), LiveReflow(label_drop=0.0)):
        with pytest.raises(ValueError, match="null condition, which was never trained"):
            scales(method, method.schedule(2), 1.5)


@pytest.mark.parametrize("method", ALL)
def test_guidance_needs_classes_and_a_null_label(method: Callable[..., Objective]) -> None:
    with pytest.raises(ValueError, match=r"^objective\.guidance 1\.5 needs classes, and this data has none"):
        method(guidance=1.5).check(UNCONDITIONAL)
    with pytest.raises(ValueError, match=r"objective\.label_drop above 0"):
        method(guidance=1.5, label_drop=0.0).check(class_labels(10))
    method(guidance=1.5).check(class_labels(10))
    method(label_drop=0.0).check(UNCONDITIONAL)


@pytest.mark.parametrize(
    ("method", "field", "value"),
    [(method, *case) for method in ALL for case in
     (("M", 100), ("M", 1), ("time", "fine"), ("label_drop", 1.01), ("label_drop", float("nan")), ("sigma_min", 1.0),
      ("guidance", -1.0), ("guidance", float("inf")))]
    + [(method, "teacher_share", value) for method in DISTILLATIONS for value in (0.0, 1.0, -0.5, float("nan"))]
    + [(ProgressiveDistillation, "clip", 0.0), (ProgressiveDistillation, "clip", float("inf")),
       (Reflow, "pairs", 0), (Reflow, "pair_steps", 0),
       (LiveReflow, "share", 0.0), (LiveReflow, "share", 1.0), (LiveReflow, "generation_steps", 0)],
)  # fmt: skip
def test_a_value_out_of_range_is_named(method: Callable[..., Objective], field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^objective\.{field} must be .*got {value!r}"):
        method(**{field: value})


@pytest.mark.parametrize(("share", "batch", "enough"), [(0.25, 1, 4), (0.125, 4, 8), (0.9, 4, 8)])
def test_a_batch_without_rows_of_one_kind_is_refused(share: float, batch: int, enough: int) -> None:
    with pytest.raises(ValueError, match=r"which leaves none of one kind: raise training\.batch"):
        LiveReflow(share=share).check_batch(batch)
    LiveReflow(share=share).check_batch(enough)
