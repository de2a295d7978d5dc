"""What is new beside the paper's algorithm: more examples of large steps, a share that changes, steps rolled out."""

from dataclasses import replace

import pytest
import torch
from tests.paper.smooth import GaussianFlow, Smooth, smooth_batch
from tests.toys import WithNull
from torch import Tensor, nn

from anystep.core.errors import UsageError
from anystep.core.random import Keys
from anystep.flow.ladder import Ladder
from anystep.flow.rise import Shape, rise
from anystep.objectives import Draw, ImprovedShortcut, Networks, PhaseProgress, Shortcut
from anystep.objectives.shortcut import FLOW, StepLevels

START = PhaseProgress(0, 1)


def levels(objective: StepLevels, rows: int, progress: PhaseProgress = START, step: int = 0) -> Tensor:
    return objective.draw_levels(Draw(Keys(0), step, rows, slice(0, rows)), progress)


def counts(level: Tensor, M: int) -> list[int]:
    return torch.bincount(level[level != FLOW], minlength=Ladder(M).levels).tolist()


def test_half_of_the_examples_are_of_the_two_largest_steps() -> None:
    level = levels(Shortcut(M=32, share=0.25, level="large"), 384)
    assert counts(level, 32) == [16, 16, 16, 24, 24]
    for first in range(0, 384, 96):
        assert counts(level[first : first + 96], 32) == [4, 4, 4, 6, 6]


@pytest.mark.parametrize("M", [2, 4])
def test_without_finer_levels_large_is_equal(M: int) -> None:
    assert torch.equal(levels(Shortcut(M=M, level="large"), 64), levels(Shortcut(M=M), 64))


def test_the_examples_of_a_level_are_where_the_released_code_has_them() -> None:
    """`bootstrap_dt_bias`: a quarter d = 1, a quarter d = 1/2, half over the rest (its create_targets, M = 128)."""
    found = counts(Ladder(128).large_share(80), 128)
    assert found == [8, 8, 8, 8, 8, 20, 20]


# --- share ---


@pytest.mark.parametrize("shape", ["linear", "cosine", "step"])
def test_the_mean_of_a_rise_is_the_same_for_every_shape(shape: Shape) -> None:
    n = 20_000
    mean = sum(rise((k + 0.5) / n, 0.2, 0.7, shape) for k in range(n)) / n
    assert mean == pytest.approx(1 - (0.2 + 0.7) / 2, abs=1e-4)


@pytest.mark.parametrize("objective", [Shortcut(M=8), ImprovedShortcut(M=8)], ids=lambda each: each.name)
def test_the_share_follows_its_schedule(objective: StepLevels) -> None:
    objective = replace(objective, share=0.5, share_start=0.125, share_change=(0.2, 0.6))
    expected = {0: 0.125, 2: 0.125, 4: 0.3125, 6: 0.5, 9: 0.5}
    for step, share in expected.items():
        level = levels(objective, 256, PhaseProgress(step, 10))
        assert int((level >= 0).sum()) == 256 * share


def test_few_examples_at_the_start_are_of_all_levels() -> None:
    objective = Shortcut(M=32, share=0.25, share_start=0.0, share_change=(0.0, 1.0))
    made = [levels(objective, 32, PhaseProgress(12, 100), step) for step in range(200)]  # one example each
    assert all(sum(counts(level, 32)) == 1 for level in made)
    assert min(torch.tensor([counts(level, 32) for level in made]).sum(0)) > 20
    assert not (levels(objective, 32, PhaseProgress(0, 100)) >= 0).any()


def test_steps_are_marked_for_a_weight_wherever_they_are_trained() -> None:
    assert Shortcut(share=0.0).marked == ()
    assert Shortcut(share=0.0, share_start=0.25).marked == Shortcut().marked == Shortcut().tags[1:]
    assert ImprovedShortcut().marked == ImprovedShortcut().tags[2:]


# --- roll-out ---


@pytest.mark.parametrize(("M", "n"), [(16, 2), (16, 4), (8, 8)])
def test_a_rolled_out_example_is_where_the_flow_leads(M: int, n: int) -> None:
    """With the exact flow of Gaussian data every state is on the path of its group's first, a step of 2d further."""
    objective, rows = Shortcut(M=M, share=0.5, roll_out=n, label_drop=0.0), 512
    batch, draw = smooth_batch(rows)
    flow = GaussianFlow()
    query = objective.targets(Networks(flow, flow), batch, draw, START).query
    level = objective.draw_levels(draw, START)
    for i in (level >= 0).nonzero().flatten().tolist():
        steps = min(n, round(1 / float(query.d[i])))
        place = i % steps
        first = i - place
        assert query.d[i] == query.d[first] and query.t[i] == query.t[first] + place * query.d[i]
        assert query.t[i] % query.d[i] == 0 and query.t[first] + steps * query.d[i] <= 1
        fresh = (1 - query.t[first]) * batch.x0[first] + query.t[first] * batch.x1[first]
        torch.testing.assert_close(query.x_t[first], fresh)
        if place:
            whole = place * query.d[i]
            reached = fresh + whole * flow(fresh[None], query.t[first][None], whole[None])[0]
            torch.testing.assert_close(query.x_t[i], reached)
    plain = Shortcut(M=M, share=0.5, label_drop=0.0).targets(Networks(flow, flow), batch, draw, START).query
    flowing = level == FLOW
    fresh = (1 - query.t)[:, None] * batch.x0 + query.t[:, None] * batch.x1
    torch.testing.assert_close(query.x_t[flowing], fresh[flowing])
    assert int((plain.d > 0).sum()) == int((query.d > 0).sum())


def test_starts_of_a_roll_out_are_drawn_equally_often() -> None:
    objective = Shortcut(M=8, share=1.0, roll_out=2)
    draw = Draw(Keys(0), 0, 40_000, slice(0, 40_000))
    level = objective.draw_levels(draw, START)
    t, d = objective.draw_times(draw, level)
    for half, starts in ((0.125, 3), (0.25, 1), (0.5, 1)):
        values, number = t[d == half].unique(return_counts=True)
        assert values.tolist() == [2 * half * n for n in range(starts)]
        assert (number / number.sum() - 1 / starts).abs().max() < 0.01


class Scaled(WithNull, nn.Module):
    """v = a x cos(t): one parameter."""

    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance=None) -> Tensor:
        return self.a * x * t.cos()[:, None].double()


def zero(x: Tensor, *rest: object) -> Tensor:
    return torch.zeros_like(x)


@pytest.mark.parametrize("through", [True, False])
def test_the_gradient_flows_through_the_state_if_asked(through: bool) -> None:
    """Against finite differences of the loss, where states move along or are those of a = 0.7."""
    objective = Shortcut(M=8, share=1.0, roll_out=4, through_state=through, label_drop=0.0)
    batch, draw = smooth_batch(96)

    def loss(network: Scaled, states: Scaled) -> Tensor:
        query = objective.targets(Networks(states, zero), batch, draw, START).query
        return network(query.x_t, query.t, query.d).square().sum()

    network = Scaled()
    loss(network, network).backward()
    values = []
    for shift in (1e-6, -1e-6):
        moved = Scaled()
        nn.init.constant_(moved.a, 0.7 + shift)
        with torch.no_grad():
            values.append(loss(moved, moved if through else Scaled()))
    assert network.a.grad is not None
    assert float(network.a.grad) == pytest.approx(float(values[0] - values[1]) / 2e-6, rel=1e-6)


def test_a_group_has_one_label_and_one_scale() -> None:
    objective = ImprovedShortcut(M=8, share=0.5, guided_share=0.25, roll_out=2, label_drop=0.3)
    batch, draw = smooth_batch(256)
    networks = Networks(Smooth.make(1), Smooth.make(2))
    query = objective.targets(networks, batch, draw, START).query
    level = objective.draw_levels(draw, START)
    second = ((level >= 0) & (level < 2)).nonzero().flatten()[1::2]
    assert len(second) and query.guidance is not None
    assert torch.equal(query.condition[second], query.condition[second - 1])
    assert torch.equal(query.guidance[second], query.guidance[second - 1])
    assert query.guidance[second].unique().numel() > 1


# --- mistakes ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"share_change": (0.7, 0.4)},
            r"objective.share_change must be two fractions that do not decrease, got '0.7 0",
        ),
        ({"share_change": (0.0, 1.5)}, r"objective.share_change must be in \[0, 1\], got 1.5"),
        ({"share_start": -0.1}, r"objective.share_start must be in \[0, 1\], got -0.1"),
        ({"roll_out": 3}, "objective.roll_out must be a power of two, got 3"),
        ({"roll_out": 0}, r"objective.roll_out must be in \[1, 64\], got 0"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, object], message: str) -> None:
    for method in (Shortcut, ImprovedShortcut):
        with pytest.raises(UsageError, match=message):
            method(**options)


def test_too_few_groups_are_refused() -> None:
    objective = Shortcut(M=8, roll_out=4)
    objective.check_batch(48)
    with pytest.raises(UsageError, match=r"is 2 groups of 4 examples, fewer than the 3 levels of M = 8: .* to 48"):
        objective.check_batch(32)
