"""Intrinsic guidance of improved shortcut models: the box in NumPy, what must not be done, and a flow that is known."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from anystep.core.random import Keys
from anystep.flow.condition import class_labels
from anystep.flow.sampling import sample
from anystep.networks import MLPConfig
from anystep.objectives import Batch, Draw, ImprovedShortcut, Networks, PhaseProgress, Shortcut
from anystep.training.ema import Ema
from tests.guidance import scales
from tests.paper.toy import CLASSES, WIDTH, M
from tests.toys import WithNull

LEVELS = 3  # log2 M


@dataclass(frozen=True)
class Told(WithNull):
    """s(x, t, d, c, W) = tanh(A x + p t + q log2(1/d) / 8 + E[c] + r (W - 1)) + x / 3, where d = 0 counts as 1/M."""

    A: np.ndarray
    p: np.ndarray
    q: np.ndarray
    r: np.ndarray
    E: np.ndarray
    asked: list[int] = field(default_factory=list)

    num_classes = CLASSES
    takes_guidance = True

    @classmethod
    def make(cls, seed: int) -> "Told":
        rng = np.random.default_rng(seed)
        p, q, r = rng.normal(size=(3, WIDTH))
        return cls(rng.normal(size=(WIDTH, WIDTH)) / 2, p, q, r, rng.normal(size=(CLASSES + 1, WIDTH)))

    def row(self, x: np.ndarray, t: float, d: float, c: int, W: float) -> np.ndarray:
        """One example, in NumPy."""
        index = np.log2(M) if d == 0 else np.log2(1 / d)
        return np.tanh(self.A @ x + self.p * t + self.q * index / 8 + self.E[c] + self.r * (W - 1)) + x / 3

    def __call__(
        self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance: Tensor | None = None
    ) -> Tensor:
        """A batch, in torch; notes its rows."""
        self.asked.append(len(x))
        A, p, q, r, E = (torch.from_numpy(a).to(x.dtype) for a in (self.A, self.p, self.q, self.r, self.E))
        index = torch.where(d == 0, float(np.log2(M)), torch.log2(1 / d.clamp(min=1e-9)))
        embedded = E[torch.full((len(x),), CLASSES) if label is None else label]
        W = torch.ones_like(t) if guidance is None else guidance
        t, index, W = (value[:, None].to(x.dtype) for value in (t, index, W))
        return torch.tanh(x @ A.T + t * p + index * q / 8 + embedded + (W - 1) * r) + x / 3


Row = tuple[np.ndarray, float, float, int, float, np.ndarray, int]


def box(
    objective: ImprovedShortcut, s: Told, x0: np.ndarray, x1: np.ndarray, label: np.ndarray, draw: Draw
) -> list[Row]:
    """Return (x_t, t, d, label, W, target, tag) of each row, as in the box; ``s`` is the EMA."""
    u, drop, g = (draw.uniform(name).numpy() for name in ("time", "label_drop", "guidance"))
    rows, steps = len(x1), round((objective.guidance_max - 1) / objective.guidance_step)
    consistent = np.diff(np.round(np.arange(rows + 1) * objective.share)) > 0
    others = rows - consistent.sum()
    marks = np.diff(np.round(np.arange(others + 1) * (objective.guided_share / (1 - objective.share)))) > 0
    count, made, place, other = int(consistent.sum()), [], 0, 0
    for i in range(rows):
        null = drop[i] < objective.label_drop
        if not consistent[i]:
            t = math.floor(u[i] * M) / M
            x_t, v, guided = (1 - t) * x0[i] + t * x1[i], x1[i] - x0[i], marks[other]
            other += 1
            if not guided:  # 1. velocity
                made.append((x_t, t, 0.0, CLASSES if null else int(label[i]), 1.0, v, 0))
                continue
            c, w = int(label[i]), objective.guidance_step * (1 + math.floor(g[i] * steps))  # 2. guided velocity
            difference = s.row(x_t, t, 0.0, c, 1.0) - s.row(x_t, t, 0.0, CLASSES, 1.0)
            made.append((x_t, t, 0.0, c, 1 + w, v + w * (t >= objective.interval) * difference, 1))
            continue
        level = place % LEVELS if place < count - count % LEVELS else LEVELS - 1  # 3. self-consistency
        place += 1
        d = 2.0**level / M
        t = math.floor(u[i] / (2 * d)) * 2 * d
        x_t = (1 - t) * x0[i] + t * x1[i]
        c = CLASSES if null else int(label[i])
        n = math.floor(g[i] * (steps + 1))
        if (p := objective.plain_share) is not None:
            n = 0 if g[i] < p else 1 + math.floor((g[i] - p) / (1 - p) * steps)
        W = 1.0 if null else 1 + objective.guidance_step * n
        asked = 0.0 if level == 0 else d
        bound = math.inf if objective.clip is None else objective.clip
        a = s.row(x_t, t, asked, c, W)
        b = s.row(np.clip(x_t + d * a, -bound, bound), t + d, asked, c, W)
        made.append((x_t, t, 2 * d, c, W, np.clip((a + b) / 2, -bound, bound), level + 2))
    return made


def labelled(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Draw]:
    rng = np.random.default_rng(0)
    x0, x1 = rng.normal(size=(2, rows, WIDTH))
    return x0, x1, rng.integers(0, CLASSES, rows), Draw(Keys(0), step=5, total=rows, rows=slice(0, rows))


@pytest.mark.parametrize(
    "objective",
    [
        ImprovedShortcut(M=M),
        ImprovedShortcut(M=M, interval=0.0, label_drop=0.5),
        ImprovedShortcut(M=M, interval=1.0, guidance_max=2.0, guidance_step=0.5),
        ImprovedShortcut(M=M, share=0.5, guided_share=0.25, clip=1.0),
        ImprovedShortcut(M=M, share=0.0, guided_share=0.7),
        ImprovedShortcut(M=M, share=0.5, guided_share=0.2, plain_share=0.5),
        ImprovedShortcut(M=M, share=0.5, guided_share=0.2, plain_share=1.0),
    ],
    ids=lambda o: f"shares={o.share:.2g},{o.guided_share:.2g},interval={o.interval:g},W<={o.guidance_max:g}",
)
def test_objective_equals_the_box(objective: ImprovedShortcut) -> None:
    x0, x1, label, draw = labelled(76)
    online, target = Told.make(1), Told.make(2)
    batch = Batch(torch.from_numpy(x1), torch.from_numpy(x0), torch.from_numpy(label))
    made = objective.targets(Networks(online, target), batch, draw, PhaseProgress(0, 1))
    losses = objective.loss(Networks(online, target), batch, draw, PhaseProgress(0, 1))
    assert made.query.condition is not None and made.query.guidance is not None
    kinds = set()
    for i, (x_t, t, d, c, W, goal, tag) in enumerate(box(objective, target, x0, x1, label, draw)):
        np.testing.assert_allclose(made.query.x_t[i].numpy(), x_t, atol=1e-12)
        assert (float(made.query.t[i]), float(made.query.d[i]), float(made.query.guidance[i])) == (t, d, W)
        assert (int(made.query.condition[i]), int(made.tag[i])) == (c, tag)
        np.testing.assert_allclose(made.target[i].numpy(), goal, atol=1e-12)
        penalty = np.mean((online.row(x_t, t, d, c, W) - goal) ** 2)
        np.testing.assert_allclose(float(losses.rows[i]), penalty, rtol=1e-5)
        kinds.add(objective.tags[tag])
    assert kinds == {"flow", "guided"} | ({"1/4", "1/2", "1"} if objective.share else set())


def test_parts_of_the_global_batch_are_the_global_batch() -> None:
    x0, x1, label, _ = labelled(96)
    networks, objective = Networks(Told.make(1), Told.make(2)), ImprovedShortcut(M=M)

    def losses(part: slice) -> Tensor:
        batch = Batch(*(torch.from_numpy(a[part]) for a in (x1, x0, label)))
        return objective.loss(networks, batch, Draw(Keys(0), 5, 96, part), PhaseProgress(0, 1)).rows

    parts = torch.cat([losses(slice(first, first + 16)) for first in range(0, 96, 16)])
    torch.testing.assert_close(parts, losses(slice(0, 96)), rtol=0, atol=1e-6)


def test_before_the_interval_guidance_has_no_effect_and_the_network_is_told_it_all_the_same() -> None:
    x0, x1, label, draw = labelled(300)
    batch, networks = Batch(*map(torch.from_numpy, (x1, x0, label))), Networks(Told.make(1), Told.make(2))
    always, late = (
        ImprovedShortcut(M=M, interval=at).targets(networks, batch, draw, PhaseProgress(0, 1)) for at in (0, 0.5)
    )
    assert torch.equal(always.query.guidance, late.query.guidance)  # type: ignore[arg-type]
    guided, early = late.tag == 1, late.query.t < 0.5
    assert bool((late.query.guidance[guided] > 1).all())  # type: ignore[index]
    v = batch.x1 - batch.x0
    assert torch.equal(late.target[guided & early], v[guided & early])
    assert not torch.isclose(always.target[guided], v[guided]).all(1).any()
    assert torch.equal(late.target[~(guided & early)], always.target[~(guided & early)])


class Scalar(WithNull):
    """s = place 0 of a table for the null label, else place 1 at W = 1 and place 2 at the one W above that is trained.

    With ``itself`` the W branch answers for the label whatever W is asked: guidance made of what it has guided.
    """

    num_classes = 1
    takes_guidance = True

    def __init__(self, itself: bool) -> None:
        self.table, self.itself = torch.tensor([0.3, 1.3, 1.3], dtype=torch.float64), itself

    def __call__(
        self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance: Tensor | None = None
    ) -> Tensor:
        assert label is not None
        above = torch.full_like(label, self.itself) if guidance is None else (guidance > 1).long()
        return self.table[torch.where(label == 1, 0, 1 + above)][:, None].expand_as(x)


@pytest.mark.parametrize("w", [0.25, 0.5, 0.75, 1.0, 2.0])
def test_guidance_made_of_the_guided_branch_diverges_and_that_of_the_plain_branch_does_not(w: float) -> None:
    """Learn the target exactly, again and again: the guided difference goes to W, or to 1 / (1 - w), or away."""
    ends = []
    for itself in (False, True):
        network, one = Scalar(itself), torch.ones(1)
        v = torch.full((1, 1), 1.3, dtype=torch.float64)
        for _ in range(200):
            network.table[2] = ImprovedShortcut().guided(
                network, torch.zeros(1, 1, dtype=torch.float64), one, torch.tensor([0]), (1 + w) * one, v
            )
        ends.append(float(network.table[2] - network.table[0]))  # the plain difference is 1
    assert ends[0] == pytest.approx(1 + w)
    if w < 1:
        assert ends[1] == pytest.approx(1 / (1 - w))
    else:
        assert ends[1] > 100


@dataclass
class Tables(WithNull):
    """s(x, t, d, c, W) = P_d x + q_(d, W)[c]: one affine field a step, filled in as levels are learned."""

    P: dict[float, Tensor]
    q: dict[tuple[float, float], Tensor]
    num_classes = 2
    takes_guidance = True

    def __call__(
        self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance: Tensor | None = None
    ) -> Tensor:
        (step,) = set(d.tolist())
        (W,) = {1.0} if guidance is None else set(guidance.tolist())
        assert label is not None
        return x @ self.P[step].T + self.q[step, W][label]


def test_intrinsic_guidance_does_not_compound_over_the_levels() -> None:
    """Of an affine field the difference of one step is W times the plain one, where `all` makes it W^7."""
    objective, W = ImprovedShortcut(interval=0.0), 1.5
    P = torch.tensor([[-0.4, 1.1], [-0.7, 0.3]], dtype=torch.float64)
    q = torch.tensor([[1.0, -2.0], [0.5, 0.3], [-0.2, 0.6]], dtype=torch.float64)  # two classes and null
    tables = Tables({0.0: P}, {(0.0, 1.0): q})
    zeros, ones = torch.zeros(2), torch.ones(2)
    probes = torch.cat([torch.zeros(3, 2), torch.eye(2)]).double()  # x = 0 for each label, then the axes
    label = torch.tensor([0, 1, 2, 2, 2])
    v = tables(probes[:2], zeros, zeros, label[:2])
    guided = objective.guided(tables, probes[:2], zeros, label[:2], W * ones, v)
    tables.q[0.0, W] = torch.cat([guided, q[2:]])
    for scale in (1.0, W):
        for level in range(7):
            rows, d = torch.ones(5), 2.0**level / objective.M
            half = objective.two_half_steps(
                tables, probes, 0 * rows, d * rows, level * rows.long(), label, scale * rows
            )
            tables.q[2 * d, scale], tables.P[2 * d] = half[:3], (half[3:] - half[2]).T
    x = torch.randn(1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).expand(2, 2)
    differences = [
        (tables(x, zeros, ones, torch.tensor([0, 1]), scale * ones) - tables(x, zeros, ones, torch.tensor([2, 2])))
        for scale in (1.0, W)
    ]
    torch.testing.assert_close(differences[1], W * differences[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("W", [-1.0, 0.0, 1.0, 1.5, 2.5, 4.5])
def test_any_scale_is_one_forward_pass_a_step(W: float) -> None:
    """Against the plain loop in NumPy; W = 0 is the null label at W = 1."""
    s, rng = Told.make(3), np.random.default_rng(1)
    noise, label = rng.normal(size=(4, WIDTH)), np.array([0, 1, 2, CLASSES])
    drawn = sample(s, torch.from_numpy(noise), steps=4, condition=torch.from_numpy(label), guidance=W)
    assert s.asked == [4] * 4
    for x, c, end in zip(noise, label, drawn.numpy(), strict=True):
        told = 1.0 if c == CLASSES or W == 0 else W  # nothing guides the null label
        at = x
        for n in range(4):
            at = at + s.row(at, n / 4, 1 / 4, CLASSES if W == 0 else int(c), told) / 4
        np.testing.assert_allclose(end, at, atol=1e-12)


MEANS, STD = torch.tensor([[1.5, 0.0], [-0.5, 1.2], [-0.5, -1.2]]), 0.5


def class_velocity(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    """E[x1 - x0 | x_t, c] for x1 ~ N(mean_c, std^2 I): linear regression of jointly Gaussian variables."""
    t, mean = t[:, None], MEANS[label]
    variance = (1 - t) ** 2 + (t * STD) ** 2
    return mean + (t * STD**2 - (1 - t)) / variance * (x - t * mean)


def null_velocity(x: Tensor, t: Tensor) -> Tensor:
    """E[x1 - x0 | x_t]: the mean of the classes' velocities by what each class is worth at x_t."""
    variance = (1 - t) ** 2 + (t * STD) ** 2
    distance = (x[:, None] - t[:, None, None] * MEANS).square().sum(2)
    worth = torch.softmax(-distance / (2 * variance[:, None]), dim=1)
    each = torch.stack([class_velocity(x, t, torch.full((len(x),), k)) for k in range(len(MEANS))], dim=1)
    return (worth[:, :, None] * each).sum(1)


def guided_flow(x: Tensor, label: Tensor, W: float, steps: int = 128) -> Tensor:
    """Integrate the guided velocity by the midpoint rule."""

    def velocity(x: Tensor, at: float) -> Tensor:
        t = torch.full((len(x),), at)
        v = class_velocity(x, t, label)
        return v + (W - 1) * (v - null_velocity(x, t))

    for n in range(steps):
        middle = x + velocity(x, n / steps) / (2 * steps)
        x = x + velocity(middle, (n + 0.5) / steps) / steps
    return x


def test_the_closed_form_is_right() -> None:
    """The plain flow keeps quantiles, x0 -> mean + std x0, and the midpoint rule has converged."""
    x, label = torch.randn(500, 2, generator=torch.Generator().manual_seed(5)), torch.arange(500) % 3
    torch.testing.assert_close(guided_flow(x, label, 1.0), MEANS[label] + STD * x, rtol=0, atol=1e-3)
    torch.testing.assert_close(guided_flow(x, label, 2.5), guided_flow(x, label, 2.5, 256), rtol=0, atol=1e-3)


def test_a_trained_network_makes_every_guided_flow_in_one_step() -> None:
    """Root mean square error below 0.16 (0.08 to 0.15 over four seeds); each W's own flow is the nearest.

    Guidance moves samples by 0.19 (W = 1.5) and 0.41 (W = 2.5); a class has a standard deviation of 0.5.
    """
    torch.manual_seed(0)
    smallest = 32
    network = MLPConfig(hidden=64, depth=2, guidance_input=True).build((2,), class_labels(3), smallest)
    target, average = Ema(network, 0.95), Ema(network, 0.99)
    objective, steps, rows = ImprovedShortcut(M=smallest, interval=0.0, guidance_max=2.5), 800, 128
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3, weight_decay=1e-4, foreach=True)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * (1 - step / steps)
        draw = Draw(Keys(0), step, rows, slice(0, rows))
        label = (draw.uniform("class") * 3).long()
        batch = Batch(MEANS[label] + STD * draw.normal("data", (2,)), draw.normal("noise", (2,)), label)
        objective.loss(
            Networks(network, target.network), batch, draw, PhaseProgress(step, steps)
        ).rows.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        target.update(network, step)
        average.update(network, step)
    x0, label = torch.randn(2000, 2, generator=torch.Generator().manual_seed(5)), torch.arange(2000) % 3
    flows = {W: guided_flow(x0, label, W) for W in (1.0, 1.5, 2.5)}

    def apart(a: Tensor, b: Tensor) -> float:
        return math.sqrt(float((a - b).square().mean()))

    assert [round(apart(flows[W], flows[1.0]), 2) for W in flows] == [0.0, 0.19, 0.41]
    for W in flows:
        drawn = sample(average.network, x0, steps=1, condition=label, guidance=W)
        errors = {other: apart(drawn, flow) for other, flow in flows.items()}
        assert errors[W] < 0.16 and min(errors, key=errors.__getitem__) == W, (W, errors)


def test_an_interval_in_plain_shortcut_models_is_guidance_at_the_finest_level_from_then_on() -> None:
    """Half steps that begin before it have W = 1, the others W; so does sampling at d = 0."""
    x0, x1, label, draw = labelled(96)
    batch, networks = Batch(*map(torch.from_numpy, (x1, x0, label))), Networks(Told.make(1), Told.make(2))
    plain, late, never = (
        Shortcut(M=M, share=1.0, guidance=W, interval=at).targets(networks, batch, draw, PhaseProgress(0, 1))
        for W, at in ((1.5, 0.0), (1.5, 0.5), (1.0, 0.0))
    )
    finest, t = plain.tag == 1, plain.query.t
    assert torch.equal(late.target[finest & (t >= 0.5)], plain.target[finest & (t >= 0.5)])
    before = t + 1 / M < 0.5
    torch.testing.assert_close(late.target[finest & before], never.target[finest & before])
    assert not torch.equal(late.target, plain.target) and not torch.equal(late.target, never.target)
    objective = Shortcut(M=M, guidance=1.5, interval=0.5)
    assert scales(objective, objective.schedule(8), None) == [1.0] * 4 + [1.5] * 4
    assert scales(objective, objective.schedule(4), None) == [1.0] * 4
