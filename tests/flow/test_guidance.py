"""Guidance by two passes: limit cases, and what it costs."""

import pytest
import torch
from tests.toys import WithNull
from torch import Tensor

from anystep.core.errors import UsageError
from anystep.flow.guidance import guide, guided_velocity
from anystep.flow.sampling import refine, sample

CLASSES = 3


class Classes(WithNull):
    """v = x + label, 100 for the null label; notes the rows of each pass."""

    num_classes = CLASSES

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance=None) -> Tensor:
        assert label is not None
        self.rows.append(len(x))
        return x + torch.where(label == CLASSES, 100, label)[:, None]


class TakesGuidance(Classes):
    """Takes W: v = x + W (label - 100) + 100, and just 100 for the null label, whatever W."""

    takes_guidance = True

    def __call__(self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance=None) -> Tensor:
        assert label is not None
        self.rows.append(len(x))
        W = torch.ones_like(t) if guidance is None else guidance
        assert W.dtype == torch.float32 and bool((W[label == CLASSES] == 1).all())
        return x + torch.where(label == CLASSES, 100, 100 + W * (label - 100))[:, None]


class Unconditional:
    def __call__(self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance=None) -> Tensor:
        return -x


@pytest.fixture
def x() -> Tensor:
    return torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


LABEL = torch.tensor([0, 1, 2, 0, 1, 2])
ZERO = torch.zeros(6)


@pytest.mark.parametrize(("scale", "rows"), [(0.0, 6), (1.0, 6), (1.5, 12), (-2.0, 12)])
def test_the_guided_velocity_is_linear_in_the_scale(x: Tensor, scale: float, rows: int) -> None:
    """Null at W = 0, label at W = 1, and a straight line between and beyond; W = 0 and 1 cost one pass."""
    network = Classes()
    v = guided_velocity(network, x, ZERO, ZERO, LABEL, scale)
    torch.testing.assert_close(v, x + ((1 - scale) * 100 + scale * LABEL)[:, None])
    assert network.rows == [rows]


@pytest.mark.parametrize("scale", [-2.0, 0.0, 1.0, 1.5, 3.0])
def test_a_network_that_takes_the_scale_is_evaluated_once(x: Tensor, scale: float) -> None:
    """One that has learned guidance predicts what two passes give; null examples are evaluated at W = 1."""
    once, twice = TakesGuidance(), Classes()
    label = torch.tensor([0, 1, 2, 0, CLASSES, 2])
    v = guided_velocity(once, x, ZERO, ZERO, label, scale)
    torch.testing.assert_close(v, guided_velocity(twice, x, ZERO, ZERO, label, scale))
    assert once.rows == [6] and twice.rows == [6 if scale in {0, 1} else 12]
    with pytest.raises(UsageError, match="guidance needs a condition: pass `condition` or set guidance to 1"):
        guided_velocity(once, x, ZERO, ZERO, None, 2.0)


def test_each_example_may_have_its_scale() -> None:
    v_label, v_null = torch.ones(4, 2, dtype=torch.float64), torch.zeros(4, 2, dtype=torch.float64)
    assert guide(v_label, v_null, torch.tensor([1.0, 1.0, 2.5, 2.5]))[:, 1].tolist() == [1, 1, 2.5, 2.5]


def test_guidance_does_nothing_where_label_and_null_agree() -> None:
    v = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(guide(v, v, 7.5), v)


def test_the_increment_of_the_ism_paper_is_the_scale_less_one() -> None:
    v_label, v_null = torch.tensor([3.0]), torch.tensor([1.0])
    w = 0.75
    torch.testing.assert_close(guide(v_label, v_null, 1 + w), v_label + w * (v_label - v_null))


def test_guidance_needs_a_condition_and_a_network_that_may_go_without(x: Tensor) -> None:
    for network in (Unconditional(), Classes()):
        with pytest.raises(UsageError, match="guidance needs a condition: pass `condition` or set guidance to 1"):
            sample(network, x, guidance=2.0)
    with pytest.raises(UsageError, match=r"Unconditional has no method null\(condition\), which guidance"):
        sample(Unconditional(), x, condition=LABEL, guidance=2.0)
    with pytest.raises(ValueError, match="guidance has 3 values for 2 steps"):
        sample(Classes(), x, steps=2, condition=LABEL, guidance=[1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="guidance must be finite, got nan"):
        sample(Classes(), x, steps=2, condition=LABEL, guidance=[1.0, float("nan")])


def test_refined_samples_are_the_same_samples_of_the_batch(x: Tensor) -> None:
    keep = torch.tensor([4, 1])
    whole = sample(Classes(), x, steps=16, condition=LABEL, guidance=1.5)
    assert torch.equal(refine(Classes(), x, keep, steps=16, condition=LABEL, guidance=1.5), whole[keep])
    assert torch.equal(refine(Unconditional(), x, keep, steps=5), sample(Unconditional(), x, steps=5)[keep])


@pytest.mark.parametrize("steps", [0, -1, True])
def test_a_budget_is_at_least_one_step(x: Tensor, steps: int) -> None:
    with pytest.raises(ValueError, match="steps must be an integer of at least 1"):
        sample(Unconditional(), x, steps=steps)
