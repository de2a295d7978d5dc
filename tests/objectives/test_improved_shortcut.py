"""What an improved shortcut model's rows are, beyond the box of tests/paper."""

import pytest
import torch
from scipy import stats
from tests.guidance import scales
from tests.toys import WithNull
from torch import Tensor, nn

from anystep.core.random import Keys
from anystep.flow.condition import UNCONDITIONAL, class_labels
from anystep.networks import MLPConfig
from anystep.objectives import Batch, Draw, ImprovedShortcut, Networks, PhaseProgress, Shortcut, Targets

CLASSES, WIDTH = 10, 2


class Linear(WithNull, nn.Module):
    """v = A x + E[label]; counts the rows that it is asked for."""

    def __init__(self, num_classes: int | None = CLASSES) -> None:
        super().__init__()
        self.weight, self.table = nn.Linear(WIDTH, WIDTH), nn.Embedding(CLASSES + 1, WIDTH)
        self.num_classes, self.rows = num_classes, 0

    def forward(self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance=None) -> Tensor:
        self.rows += len(x)
        return self.weight(x) + (0 if label is None else self.table(label))


def made(objective: ImprovedShortcut, rows: int, networks: Networks | None = None, classes: bool = True) -> Targets:
    draw = Draw(Keys(0), 0, rows, slice(0, rows))
    label = torch.arange(rows) % CLASSES if classes else None
    batch = Batch(draw.normal("data", (WIDTH,)), draw.normal("noise", (WIDTH,)), label)
    return objective.targets(networks or Networks(Linear(), Linear()), batch, draw, PhaseProgress(0, 1))


@pytest.mark.parametrize(("share", "guided_share"), [(1 / 3, 1 / 3), (0.25, 0.25), (0.5, 0.125), (0.0, 0.5)])
def test_every_part_of_a_batch_has_its_share_of_every_kind_of_row(share: float, guided_share: float) -> None:
    objective, size = ImprovedShortcut(share=share, guided_share=guided_share), 64
    for total in (64, 256):
        counts = torch.zeros(3)
        for first in range(0, total, size):
            level = objective.draw_levels(Draw(Keys(0), 0, total, slice(first, first + size)), PhaseProgress(0, 1))
            part = torch.stack([(level == -1).sum(), (level == -2).sum(), (level >= 0).sum()])
            wanted = size * torch.tensor([1 - share - guided_share, guided_share, share])
            assert bool(((part - wanted).abs() <= 2).all()), (part, wanted)
            counts += part
        assert bool(((counts - total * wanted / size).abs() <= 1).all())


def test_scales_are_drawn_from_the_grid_and_null_rows_have_none() -> None:
    targets = made(ImprovedShortcut(guidance_max=2.0, guidance_step=0.25), 30_000)
    W, label = targets.query.guidance, targets.query.condition
    assert W is not None and label is not None
    flow, guided, consistent = targets.tag == 0, targets.tag == 1, targets.tag > 1
    null = label == CLASSES
    assert bool((W[flow | null] == 1).all())
    for rows, grid in ((guided, [1.25, 1.5, 1.75, 2.0]), (consistent & ~null, [1.0, 1.25, 1.5, 1.75, 2.0])):
        values, counts = W[rows].unique(return_counts=True)
        assert values.tolist() == grid
        assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_labels_are_dropped_at_every_step_size_but_never_from_a_guided_row() -> None:
    targets = made(ImprovedShortcut(label_drop=0.1), 30_000)
    assert targets.query.condition is not None
    null, d = targets.query.condition == CLASSES, targets.query.d
    assert not null[targets.tag == 1].any()
    for rows in (targets.tag == 0, d == 1, (d > 0) & (d < 1)):
        assert stats.binomtest(int(null[rows].sum()), int(rows.sum()), 0.1).pvalue > 1e-3


def test_tags_name_the_kind_of_row() -> None:
    objective = ImprovedShortcut(M=8)
    assert objective.tags == ("flow", "guided", "1/4", "1/2", "1")
    targets = made(objective, 90)
    steps = {2: 0.25, 3: 0.5, 4: 1.0}
    for tag, d in zip(targets.tag.tolist(), targets.query.d.tolist(), strict=True):
        assert d == steps.get(tag, 0.0)


@pytest.mark.parametrize("shares", [(1 / 3, 1 / 3), (0.25, 0.5), (0.0, 0.1)])
@pytest.mark.parametrize("interval", [0.0, 0.3])
def test_cost_is_what_the_networks_are_asked_for(shares: tuple[float, float], interval: float) -> None:
    """Forward 1 and backward 2 of each row, forward 1 of each row that makes targets, over flow matching's 3."""
    objective = ImprovedShortcut(share=shares[0], guided_share=shares[1], interval=interval)
    networks = Networks(Linear(), Linear())
    made(objective, 420, networks)
    assert (3 * 420 + networks.target.rows) / (3 * 420) == pytest.approx(objective.cost)  # type: ignore[union-attr]
    assert ImprovedShortcut().cost == pytest.approx(13 / 9)


def test_without_classes_no_row_is_guided_and_the_rest_is_a_shortcut_model() -> None:
    networks = Networks(Linear(None), Linear(None))
    improved = made(ImprovedShortcut(), 420, networks, classes=False)
    asked = networks.target.rows  # type: ignore[union-attr]
    assert improved.query.guidance is not None and set(improved.query.guidance.tolist()) == {1.0}
    assert asked == 2 * 140  # two half steps of a third of the rows
    draw = Draw(Keys(0), 0, 420, slice(0, 420))
    batch = Batch(draw.normal("data", (WIDTH,)), draw.normal("noise", (WIDTH,)))
    plain = Shortcut(share=1 / 3).targets(networks, batch, draw, PhaseProgress(0, 1))
    assert torch.equal(improved.target, plain.target) and torch.equal(improved.query.x_t, plain.query.x_t)
    ImprovedShortcut(label_drop=0.0).check(UNCONDITIONAL)


def test_targets_carry_no_gradient() -> None:
    networks = Networks(Linear(), Linear())
    targets = made(ImprovedShortcut(), 90, networks)
    assert not targets.target.requires_grad and not targets.query.x_t.requires_grad
    ImprovedShortcut().loss(
        networks, Batch(torch.randn(90, 2), torch.randn(90, 2), torch.arange(90) % 10),
        Draw(Keys(0), 0, 90, slice(0, 90)), PhaseProgress(0, 1),
    ).rows.mean().backward()  # fmt: skip
    assert all(p.grad is None for p in networks.target.parameters())  # type: ignore[union-attr]
    assert all(p.grad is not None for p in networks.online.parameters())  # type: ignore[attr-defined]


def test_a_network_learns_to_tell_scales_apart() -> None:
    """The gradient of the loss reaches the embedding of W, which begins at zero."""
    network = MLPConfig(hidden=16, depth=1, guidance_input=True).build((WIDTH,), class_labels(CLASSES))
    with torch.no_grad():
        for p in network.blocks.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(0)) * 0.1)
        network.leave.weight.normal_(generator=torch.Generator().manual_seed(1))
    batch = Batch(torch.randn(90, 2), torch.randn(90, 2), torch.arange(90) % 10)
    ImprovedShortcut().loss(
        Networks(network, network), batch, Draw(Keys(0), 0, 90, slice(0, 90)), PhaseProgress(0, 1)
    ).rows.mean().backward()
    assert network.condition.guidance is not None
    assert bool(network.condition.guidance.outer.weight.grad.any())  # type: ignore[union-attr]


def test_any_scale_may_be_sampled_and_an_untrained_one_with_a_word_of_caution() -> None:
    objective = ImprovedShortcut()
    for steps in (1, 4, 128):
        plan = objective.schedule(steps)
        assert scales(objective, plan, None) == [1.0] * steps
        for W in (-1.0, 0.0, 1.0, 2.5, 4.5, 6.0):
            assert scales(objective, plan, W) == [W] * steps
            assert (objective.caution(plan, W) is None) == (W == 0 or 1 <= W <= 4.5)
    assert objective.caution(plan, None) is None
    assert objective.caution(plan, 6.0) == "guidance 6 is outside 1 ... 4.5, which this model was trained for"


def test_the_schedule_is_a_shortcut_models() -> None:
    for steps in (1, 3, 64, 128, 129):
        for order in ("small_last", "small_first"):
            assert ImprovedShortcut(order=order).schedule(steps) == Shortcut(order=order).schedule(steps)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"M": 100}, "objective.M must be a power of two"),
        ({"share": 1.0}, r"objective.share must be in \[0, 1\), got 1.0"),
        ({"guided_share": 0.0}, r"objective.guided_share must be in \(0, 1\), got 0.0"),
        ({"share": 0.5, "guided_share": 0.5}, "objective.guided_share must be below 1 with objective.share, so that"),
        ({"guidance_max": 1.0}, r"objective.guidance_max must be in \(1, 100\], got 1.0"),
        (
            {"guidance_max": 1.125},
            "objective.guidance_step must be an integer fraction of objective.guidance_max - 1 = 0.125",
        ),
        (
            {"guidance_step": 0.3},
            "objective.guidance_step must be an integer fraction of objective.guidance_max - 1 = 3.5",
        ),
        ({"guidance_step": 0.0}, "objective.guidance_step must be greater than 0"),
        ({"interval": 1.1}, r"objective.interval must be in \[0, 1\], got 1.1"),
        ({"label_drop": -0.1}, "objective.label_drop must be in"),
        ({"sigma_min": 1.0}, "objective.sigma_min must be in"),
        ({"clip": 0.0}, "objective.clip must be greater than 0"),
        ({"level": "fine"}, "objective.level must be one of"),
        ({"time": "fine"}, "objective.time must be one of"),
        ({"order": "fine"}, "objective.order must be one of"),
    ],
)
def test_a_value_out_of_range_is_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        ImprovedShortcut(**fields)  # type: ignore[arg-type]


def test_what_would_leave_a_part_untrained_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs a trained null label: set objective\.label_drop"):
        ImprovedShortcut(label_drop=0.0).check(class_labels(10))
    with pytest.raises(ValueError, match=r"fewer than the 7 levels of M = 128: raise training\.batch to 21"):
        ImprovedShortcut().check_batch(16)
