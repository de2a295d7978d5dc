"""What a shortcut model's targets are, row by row, beyond the box of tests/paper."""

from dataclasses import dataclass, field
from fractions import Fraction

import pytest
import torch
from scipy import stats
from tests.guidance import scales, warnings
from tests.toys import WithNull
from torch import Tensor, nn

from anystep.core.random import Keys
from anystep.flow.condition import UNCONDITIONAL, class_labels
from anystep.flow.ladder import Ladder
from anystep.objectives import Batch, Draw, FlowMatching, Networks, Objective, PhaseProgress, Shortcut, Targets

CLASSES, WIDTH = 10, 2


class Linear(WithNull, nn.Module):
    """v = W x + E[label]; counts the rows that it is asked for."""

    num_classes = CLASSES

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.table = nn.Linear(WIDTH, WIDTH), nn.Embedding(CLASSES + 1, WIDTH)
        self.rows = 0

    def forward(self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance=None) -> Tensor:
        self.rows += len(x)
        return self.weight(x) + self.table(torch.full_like(t, CLASSES, dtype=torch.long) if label is None else label)


def made(objective: Objective, rows: int = 280, networks: Networks | None = None) -> tuple[Targets, Tensor]:
    """The targets of one step, and the labels before any was dropped."""
    draw = Draw(Keys(0), 0, rows, slice(0, rows))
    label = torch.arange(rows) % CLASSES
    batch = Batch(draw.normal("data", (WIDTH,)), draw.normal("noise", (WIDTH,)), label)
    return objective.targets(networks or Networks(Linear(), Linear()), batch, draw, PhaseProgress(0, 1)), label


@pytest.mark.parametrize("objective", [FlowMatching(), Shortcut(), Shortcut(label_drop=0.3)], ids=str)
def test_flow_rows_lose_their_label_at_the_given_rate(objective: Objective) -> None:
    targets, label = made(objective, 20_000)
    flow = targets.tag == 0
    dropped = targets.query.condition[flow] == CLASSES
    assert stats.binomtest(int(dropped.sum()), int(flow.sum()), objective.label_drop).pvalue > 1e-3
    assert torch.equal(targets.query.condition[flow][~dropped], label[flow][~dropped])


def test_self_consistency_rows_keep_their_labels_unless_all_rows_drop_them() -> None:
    targets, label = made(Shortcut(label_drop=0.5), 4000)
    consistent = targets.tag > 0
    assert torch.equal(targets.query.condition[consistent], label[consistent])
    targets, label = made(Shortcut(label_drop=0.5, label_drop_rows="all"), 4000)
    dropped = targets.query.condition[consistent] == CLASSES
    assert stats.binomtest(int(dropped.sum()), len(dropped), 0.5).pvalue > 1e-3


@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_targets_carry_no_gradient(guidance: float) -> None:
    networks = Networks(Linear(), Linear())
    targets, _ = made(Shortcut(guidance=guidance), networks=networks)
    assert not targets.target.requires_grad and not targets.query.x_t.requires_grad
    draw = Draw(Keys(0), 0, 280, slice(0, 280))
    batch = Batch(draw.normal("data", (WIDTH,)), draw.normal("noise", (WIDTH,)), torch.arange(280) % CLASSES)
    Shortcut(guidance=guidance).loss(networks, batch, draw, PhaseProgress(0, 1)).rows.mean().backward()
    assert all(p.grad is None for p in networks.target.parameters())
    assert all(p.grad is not None for p in networks.online.parameters())


def test_tags_name_the_step_that_a_row_trains() -> None:
    for M in (2, 16, 128):
        objective = Shortcut(M=M, share=0.5)
        targets, _ = made(objective)
        assert objective.tags[0] == "flow" and len(objective.tags) == 1 + Ladder(M).levels
        for tag, d in zip(targets.tag.tolist(), targets.query.d.tolist(), strict=True):
            assert d == (0 if tag == 0 else float(Fraction(objective.tags[tag])))


def test_a_step_begins_at_a_multiple_of_its_own_size_and_ends_within_the_path() -> None:
    """Every such start is drawn, equally often: discrete time sampling (Frans et al. 2024)."""
    targets, _ = made(Shortcut(M=8, share=1.0), 30_000)
    for d in (0.25, 0.5, 1.0):
        t = targets.query.t[targets.query.d == d]
        values, counts = t.unique(return_counts=True)
        assert values.tolist() == [n * d for n in range(round(1 / d))]
        assert d == 1 or stats.chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize(
    "objective",
    [
        FlowMatching(),
        Shortcut(),
        Shortcut(share=0.5),
        Shortcut(share=0),
        Shortcut(guidance=1.5),
        Shortcut(guidance=1.5, cfg_levels="all"),
    ],
    ids=str,
)
def test_cost_is_what_the_networks_are_asked_for(objective: Objective) -> None:
    """Forward 1 and backward 2 of each row, forward 1 of each row that makes targets, over flow matching's 3."""
    networks = Networks(Linear(), Linear())
    draw = Draw(Keys(0), 0, 280, slice(0, 280))  # 70 rows in 7 levels at a share of 1/4
    batch = Batch(draw.normal("data", (WIDTH,)), draw.normal("noise", (WIDTH,)), torch.arange(280) % CLASSES)
    objective.loss(networks, batch, draw, PhaseProgress(0, 1))
    assert (3 * networks.online.rows + networks.target.rows) / (3 * 280) == pytest.approx(objective.cost)


def test_cost_at_a_quarter_is_the_papers_sixteen_percent() -> None:
    assert Shortcut().cost == pytest.approx(7 / 6)
    assert round(Shortcut().cost, 3) == 1.167


def test_without_self_consistency_rows_it_is_flow_matching() -> None:
    one, other = made(Shortcut(share=0.0))[0], made(FlowMatching())[0]
    for name in ("x_t", "t", "d", "condition"):
        assert torch.equal(getattr(one.query, name), getattr(other.query, name))
    assert torch.equal(one.target, other.target)


def test_random_levels_are_uniform_and_on_the_same_rows() -> None:
    draw = Draw(Keys(0), 0, 28_000, slice(0, 28_000))
    equal, drawn = (Shortcut(level=law).draw_levels(draw, PhaseProgress(0, 1)) for law in ("equal", "random"))
    assert torch.equal(equal < 0, drawn < 0)
    assert stats.chisquare(torch.bincount(drawn[drawn >= 0], minlength=7).numpy()).pvalue > 1e-3


def test_clipping_bounds_targets_of_self_consistency_rows_only() -> None:
    targets, _ = made(Shortcut(clip=0.125, share=0.5))
    consistent = targets.tag > 0
    assert float(targets.target[consistent].abs().max()) <= 0.125
    torch.testing.assert_close(targets.target[~consistent], made(Shortcut(share=0.5))[0].target[~consistent])


@dataclass
class Tables(WithNull):
    """s(x, t, d, c) = P_d x + q_d[c]: one affine field a step, filled in as levels are learned."""

    P: dict[float, Tensor] = field(default_factory=dict)
    q: dict[float, Tensor] = field(default_factory=dict)
    num_classes = 2

    def __call__(self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance=None) -> Tensor:
        (step,) = set(d.tolist())
        assert label is not None
        return x @ self.P[step].T + self.q[step][label]


def bootstrapped(objective: Shortcut) -> Tensor:
    """Learn every level exactly; return s(x, 0, 1, class 0) - s(x, 0, 1, null), the same at every x."""
    P = torch.tensor([[-0.4, 1.1], [-0.7, 0.3]], dtype=torch.float64)
    q = torch.tensor([[1.0, -2.0], [0.5, 0.3], [-0.2, 0.6]], dtype=torch.float64)  # two classes and null
    tables = Tables({0.0: P}, {0.0: q})
    probes = torch.cat([torch.zeros(3, 2), torch.eye(2)]).double()  # x = 0 for each label, then the axes
    label = torch.tensor([0, 1, 2, 2, 2])
    for level in range(objective.ladder.levels):
        d = 2.0**level / objective.M
        rows = torch.ones(5)
        target = objective.two_half_steps(tables, probes, 0 * rows, d * rows, level * rows.long(), label)
        tables.q[2 * d], tables.P[2 * d] = target[:3], (target[3:] - target[2]).T
    x = torch.randn(1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).expand(2, 2)
    one, zero = torch.ones(2), torch.zeros(2)
    v, v_null = tables(x, zero, one, torch.tensor([0, 2]))
    return v - v_null


@pytest.mark.parametrize(("levels", "power"), [("finest", 1), ("all", 7)])
def test_guidance_compounds_over_levels_unless_it_is_kept_to_the_finest(levels: str, power: int) -> None:
    """Improved shortcut models, Proposition 1: of an affine field the ratio is W, or W^log2(M) = 1.5^7 = 17.086."""
    plain = bootstrapped(Shortcut())
    ratio = bootstrapped(Shortcut(guidance=1.5, cfg_levels=levels)) / plain  # type: ignore[arg-type]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 1.5**power))
    assert power == 1 or round(float(ratio[0]), 3) == 17.086


def test_guidance_is_refused_twice_and_without_classes() -> None:
    trained = Shortcut(guidance=1.5)
    assert scales(trained, trained.schedule(4), None) == [1.0] * 4
    assert scales(trained, trained.schedule(128), None) == [1.5] * 128  # d = 0 was not trained with guidance
    assert scales(trained, trained.schedule(4), 2.0, twice=True) == [2.0] * 4
    with pytest.raises(ValueError, match="would guide twice"):
        scales(trained, trained.schedule(4), 2.0)
    with pytest.raises(ValueError, match=r"objective\.guidance 1\.5 needs classes, and this data has none"):
        trained.check(UNCONDITIONAL)
    trained.check(class_labels(10))
    Shortcut().check(UNCONDITIONAL)


@pytest.mark.parametrize(
    ("method", "field_name", "value"),
    [(method, *case) for method in (Shortcut, FlowMatching) for case in
     (("M", 100), ("M", 1), ("label_drop", 1.01), ("label_drop", -0.1), ("label_drop", float("nan")),
      ("sigma_min", 1.0), ("sigma_min", -1e-9))]
    + [(Shortcut, *case) for case in
       (("share", -0.1), ("share", 1.1), ("guidance", -1.0), ("guidance", float("inf")), ("guidance", float("nan")),
        ("clip", 0.0), ("clip", -4.0), ("clip", float("inf")))],
)  # fmt: skip
def test_a_value_out_of_range_is_named(method: type[Objective], field_name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^objective\.{field_name} must be .*got {value}"):
        method(**{field_name: value})


@pytest.mark.parametrize("field_name", ["level", "time", "label_drop_rows", "cfg_levels", "order"])
def test_a_misspelt_choice_is_not_taken_for_another(field_name: str) -> None:
    with pytest.raises(ValueError, match=rf"^objective\.{field_name} must be one of .*got 'fine'"):
        Shortcut(**{field_name: "fine"})


@pytest.mark.parametrize("guidance", [0.0, 1.5, 3.0])
def test_a_null_label_that_was_never_trained_guides_nothing_unless_it_is_allowed(guidance: float) -> None:
    never = Shortcut(label_drop=0.0)
    for steps in (1, 64, 128):
        plan = never.schedule(steps)
        for objective in (never, FlowMatching(label_drop=0.0)):
            with pytest.raises(ValueError, match=r"which was never trained: train with objective\.label_drop 0\.1"):
                scales(objective, plan, guidance)
            assert scales(objective, plan, guidance, twice=True) == [guidance] * steps
            (warning,) = warnings(objective, plan, guidance, twice=True)
            assert warning == f"guidance {guidance:g} uses the null condition, which was never trained"
            for none in (None, 1.0):
                assert scales(objective, plan, none) == [1.0] * steps
    assert scales(FlowMatching(), FlowMatching().schedule(4), guidance) == [guidance] * 4


def test_guidance_needs_a_null_label_that_is_trained() -> None:
    with pytest.raises(ValueError, match=r"objective\.label_drop above 0"):
        Shortcut(guidance=1.5, label_drop=0.0).check(class_labels(10))
    Shortcut(guidance=1.5).check(class_labels(10))


def test_a_null_label_that_was_trained_elsewhere_guides_with_a_word_of_caution() -> None:
    """As released, labels are dropped in flow rows only: at d > 0 the null label is what it is at d = 0, or nothing."""
    released, everywhere = Shortcut(), Shortcut(label_drop_rows="all")
    for steps, where in (
        (1, "at these steps"),
        (64, "at these steps"),
        (127, "at 1 of these 127 steps"),
        (128, ""),
        (129, ""),
    ):
        plan = released.schedule(steps)
        assert (where == "") == all(step.d == 0 for step in plan)
        assert scales(released, plan, 1.5) == [1.5] * steps
        trained = "guidance 1.5 uses the null condition, which was trained at d = 0 only"
        all_at_zero = "(with more steps all have d = 0)"
        assert warnings(released, plan, 1.5) == ([f"{trained}, not {where} {all_at_zero}"] if where else [])
        assert warnings(everywhere, plan, 1.5) == warnings(released, plan, None) == warnings(released, plan, 1.0) == []
