"""The distillations of Frans et al. 2024, section B.2, example by example in NumPy, and where the answer is known."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from anystep.core.random import Draw, Keys
from anystep.flow.ladder import instantaneous_schedule
from anystep.flow.query import PhaseProgress
from anystep.flow.sampling import sample
from anystep.objectives.base import Batch, Networks, Objective, Targets
from anystep.objectives.consistency_distillation import ConsistencyDistillation
from anystep.objectives.live_reflow import LiveReflow
from anystep.objectives.progressive_distillation import ProgressiveDistillation
from anystep.objectives.reflow import Reflow
from tests.paper.toy import CLASSES, WIDTH, M, Toy
from tests.toys import WithNull

ROWS = 40
Row = tuple[np.ndarray, float, float, int, np.ndarray]  # x_t, t, d, label, target


def whole(rows: int = ROWS) -> Draw:
    return Draw(Keys(0), step=5, total=rows, rows=slice(0, rows))


def drawn_batch(rows: int = ROWS) -> Batch:
    rng = np.random.default_rng(0)
    x0, x1 = torch.from_numpy(rng.normal(size=(2, rows, WIDTH)))
    return Batch(x1, x0, torch.from_numpy(rng.integers(0, CLASSES, rows)))


def guided(network: Toy, x: np.ndarray, t: float, c: int, scale: float) -> np.ndarray:
    null = network.row(x, t, 0.0, CLASSES)
    return null + scale * (network.row(x, t, 0.0, c) - null)


def same(made: Targets, rows: list[Row]) -> None:
    assert made.query.condition is not None and len(rows) == len(made.target)
    for i, (x_t, t, d, c, goal) in enumerate(rows):
        np.testing.assert_allclose(made.query.x_t[i].numpy(), x_t, atol=1e-12)
        assert (float(made.query.t[i]), float(made.query.d[i]), int(made.query.condition[i])) == (t, d, c)
        np.testing.assert_allclose(made.target[i].numpy(), goal, atol=1e-12)


def progressive_box(
    method: ProgressiveDistillation, teacher: Toy, x0: np.ndarray, x1: np.ndarray, label: np.ndarray, phase: int
) -> list[Row]:
    u, rows = whole().uniform("time").numpy(), []
    for i in range(len(x1)):
        D = 2 ** (phase + 1) / M
        t = float(np.floor(u[i] / D)) * D
        x_t, c = (1 - t) * x0[i] + t * x1[i], int(label[i])
        scale = method.guidance if phase == 0 else 1.0
        a = guided(teacher, x_t, t, c, scale)
        x_mid = x_t + D / 2 * a
        if method.clip is not None:
            x_mid = np.clip(x_mid, -method.clip, method.clip)
        b = guided(teacher, x_mid, t + D / 2, c, scale)
        rows.append((x_t, t, 0.0, c, (a + b) / 2))
    return rows


@pytest.mark.parametrize("phase", [0, 1, 2])
@pytest.mark.parametrize(("scale", "clip"), [(1.0, None), (1.5, 0.5)])
def test_progressive_distillation_equals_the_box(phase: int, scale: float, clip: float | None) -> None:
    method, batch = ProgressiveDistillation(M=M, guidance=scale, clip=clip), drawn_batch()
    student, teacher = Toy.make(1), Toy.make(2)
    made = method.targets(Networks(student, teacher=teacher), batch, whole(), PhaseProgress(3, 9, phase))
    assert batch.condition is not None
    same(made, progressive_box(method, teacher, batch.x0.numpy(), batch.x1.numpy(), batch.condition.numpy(), phase))
    assert {method.tags[tag] for tag in made.tag.tolist()} == {("1/4", "1/2", "1")[phase]}


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_consistency_distillation_equals_the_box(scale: float) -> None:
    method, batch = ConsistencyDistillation(M=M, guidance=scale), drawn_batch()
    student, average, teacher = (Toy.make(seed) for seed in (1, 2, 3))
    made = method.targets(Networks(student, average, teacher), batch, whole(), PhaseProgress(0, 1))
    u, d, rows = whole().uniform("time").numpy(), 1 / M, []
    assert batch.condition is not None
    for i in range(ROWS):
        t, c = float(np.floor(u[i] * M)) / M, int(batch.condition[i])
        x_t = (1 - t) * batch.x0[i].numpy() + t * batch.x1[i].numpy()
        x_next = x_t + d * guided(teacher, x_t, t, c, scale)
        x1hat = x_next + (1 - t - d) * average.row(x_next, t + d, 0.0, c)
        rows.append((x_t, t, 0.0, c, (x1hat - x_t) / (1 - t)))
    same(made, rows)


@pytest.mark.parametrize(("share", "scale"), [(0.25, 1.0), (0.3, 1.5), (0.5, 0.0)])
def test_live_reflow_equals_the_box(share: float, scale: float) -> None:
    """Reflow rows regress the straight path to the 8-step Euler sample of their own noise; flow rows that to data."""
    method, batch, network = LiveReflow(share=share, guidance=scale, M=M), drawn_batch(), Toy.make(1)
    made = method.targets(Networks(network), batch, whole(), PhaseProgress(0, 1))
    u, drop = whole().uniform("time").numpy(), whole().uniform("label_drop").numpy()
    boundaries, rows = np.round(np.arange(ROWS + 1) * share), []
    assert batch.condition is not None
    for i in range(ROWS):
        x0, x1, c, t = batch.x0[i].numpy(), batch.x1[i].numpy(), int(batch.condition[i]), float(np.floor(u[i] * M)) / M
        d = float(boundaries[i + 1] > boundaries[i])
        if d == 1:
            x1 = x0
            for n in range(8):
                x1 = x1 + guided(network, x1, n / 8, c, scale) / 8
        elif drop[i] < 0.1:
            c = CLASSES
        rows.append(((1 - t) * x0 + t * x1, t, d, c, x1 - x0))
    same(made, rows)
    assert torch.equal(made.tag, made.query.d.long())


def test_reflow_regresses_the_straight_path_of_each_pair() -> None:
    batch = drawn_batch()
    made = Reflow(M=M).targets(Networks(Toy.make(1)), batch, whole(), PhaseProgress(0, 1))
    u, drop, rows = whole().uniform("time").numpy(), whole().uniform("label_drop").numpy(), []
    assert batch.condition is not None
    for i in range(ROWS):
        x0, x1, t = batch.x0[i].numpy(), batch.x1[i].numpy(), float(np.floor(u[i] * M)) / M
        rows.append(((1 - t) * x0 + t * x1, t, 0.0, CLASSES if drop[i] < 0.1 else int(batch.condition[i]), x1 - x0))
    same(made, rows)


A = torch.tensor([[-0.4, 1.1, 0.0], [-1.1, -0.2, 0.3], [0.0, 0.5, 0.6]], dtype=torch.float64)
B = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.3, -1.0], [-0.2, 0.6, 0.1]], dtype=torch.float64)  # two classes, null


@dataclass
class Affine(WithNull):
    """v = P x + q[label], at every t and d."""

    P: Tensor
    q: Tensor
    num_classes = 2

    def __call__(
        self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance: Tensor | None = None
    ) -> Tensor:
        assert label is not None
        return x @ self.P.T + self.q[label]

    @classmethod
    def fitted(cls, targets: Targets) -> "Affine":
        """Minimise the squared error over all affine fields: least squares."""
        assert targets.query.condition is not None
        one_hot = torch.nn.functional.one_hot(targets.query.condition, 3).double()
        solved = torch.linalg.lstsq(torch.cat([targets.query.x_t, one_hot], dim=1), targets.target, driver="gelsd")
        return cls(solved.solution[:3].T, solved.solution[3:])


def affine_batch(rows: int = 60) -> Batch:
    x0, x1 = torch.randn(2, rows, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return Batch(x1, x0, torch.arange(rows) % 2)


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_all_phases_of_progressive_distillation_leave_one_step_that_is_all_of_the_teachers(scale: float) -> None:
    """Of an affine field each phase is exact: the last student's one step is the guided teacher's 128 Euler steps."""
    method, batch, first = ProgressiveDistillation(guidance=scale), affine_batch(), Affine(A, B)
    teacher = first
    for phase in method.phases()[1:]:
        made = method.targets(Networks(teacher, teacher=teacher), batch, whole(60), PhaseProgress(0, 1, phase.index))
        teacher = Affine.fitted(made)
    (one,) = method.schedule(1)
    drawn = sample(teacher, batch.x0, steps=[one], condition=batch.condition)
    exact = sample(first, batch.x0, steps=instantaneous_schedule(128), condition=batch.condition, guidance=scale)
    torch.testing.assert_close(drawn, exact, rtol=0, atol=1e-9)


@dataclass
class EulerEnd(WithNull):
    """The exact student of an affine teacher: (x1hat - x) / (1 - t), x1hat after the teacher's own steps of 1/M."""

    teacher: Affine
    M: int
    num_classes = 2

    def __call__(
        self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance: Tensor | None = None
    ) -> Tensor:
        assert label is not None
        velocities = []
        for start, at, c in zip(x, t.tolist(), label, strict=True):
            end = start
            for _ in range(round((1 - at) * self.M)):
                end = end + (self.teacher.P @ end + self.teacher.q[c]) / self.M
            velocities.append((end - start) / (1 - at) if at < 1 else torch.zeros_like(start))
        return torch.stack(velocities)


def test_the_teachers_own_end_point_is_the_fixed_point_of_consistency_distillation() -> None:
    teacher = Affine(A, B)
    exact = EulerEnd(teacher, 16)
    losses = ConsistencyDistillation(M=16).loss(
        Networks(exact, exact, teacher), affine_batch(), whole(60), PhaseProgress(0, 1)
    )
    assert float(losses.rows.max()) < 1e-20


def test_the_last_step_of_consistency_distillation_has_the_teachers_velocity() -> None:
    """At t = 1 - d nothing of the student is left in its own target: the boundary condition, without c_skip."""
    student, average, teacher, batch = Toy.make(1), Toy.make(2), Toy.make(3), drawn_batch(400)
    made = ConsistencyDistillation(M=M).targets(
        Networks(student, average, teacher), batch, whole(400), PhaseProgress(0, 1)
    )
    last = made.query.t == 1 - 1 / M
    assert int(last.sum()) > 20
    v = teacher(made.query.x_t, made.query.t, made.query.d, made.query.condition)
    torch.testing.assert_close(made.target[last], v[last], rtol=0, atol=1e-12)
    assert float((made.target[~last] - v[~last]).abs().amax(1).min()) > 1e-3


def test_fresh_noise_keeps_the_law_of_the_data_where_euler_steps_do_not() -> None:
    """For data N(0, s^2) the end of a path is x1hat = s x_t / std_t, std_t^2 = (1 - t)^2 + (s t)^2.

    Two jumps with fresh noise have deviation s again. Two Euler steps of the same velocity (the released code's) have
    s (1 + s) / (2 std_1/2): a fifth too much at s = 0.3.
    """
    s, rows = 0.3, 40_000

    class Exact:
        def __call__(self, x: Tensor, t: Tensor, d: Tensor, label: object = None, guidance: object = None) -> Tensor:
            at = t[:, None]
            return (s / ((1 - at) ** 2 + (s * at) ** 2).sqrt() - 1) * x / (1 - at)

    noise, fresh = torch.randn(2, rows, 1, generator=torch.Generator().manual_seed(0))
    method = ConsistencyDistillation()
    jumped = sample(Exact(), noise, steps=method.schedule(2), renoise=lambda n: fresh)
    assert abs(float(jumped.std()) / s - 1) < 4 / (2 * rows) ** 0.5
    walked = sample(Exact(), noise, steps=method.schedule(2))
    assert abs(float(walked.std() / noise.std()) - s * (1 + s) / (2 * ((1 + s**2) / 4) ** 0.5)) < 1e-5
    assert float(walked.std()) > 1.2 * s


def test_reflow_leaves_a_straight_flow_as_it_is() -> None:
    """For data N(m, s^2) joined to noise by x1 = m + s x0 paths are straight and never cross: any number of Euler
    steps of their field ends at x1, and the field has no loss on the pairs that it makes."""
    m, s = 2.0, 0.5

    class Straight:
        def __call__(self, x: Tensor, t: Tensor, d: Tensor, label: object = None, guidance: object = None) -> Tensor:
            at = t[:, None].to(x.dtype)
            return m + (s - 1) * (x - m * at) / (1 - at + s * at)

    x0 = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for steps in (1, 3, 128):
        x1 = sample(Straight(), x0, steps=instantaneous_schedule(steps))
        torch.testing.assert_close(x1, m + s * x0, rtol=0, atol=1e-6)
        losses = Reflow().loss(Networks(Straight()), Batch(x1, x0), whole(64), PhaseProgress(0, 1))
        assert float(losses.rows.max()) < 1e-12


METHODS = [
    ProgressiveDistillation(M=M, guidance=1.5),
    ConsistencyDistillation(M=M, guidance=1.5),
    Reflow(M=M),
    LiveReflow(M=M, guidance=1.5),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_parts_of_the_global_batch_are_the_global_batch(method: Objective) -> None:
    rows, networks = 48, Networks(Toy.make(1), Toy.make(2), Toy.make(3))
    batch = drawn_batch(rows)
    assert batch.condition is not None

    def losses(part: slice) -> Tensor:
        ours = Batch(batch.x1[part], batch.x0[part], batch.condition[part])
        return method.loss(networks, ours, Draw(Keys(0), 5, rows, part), PhaseProgress(0, 1)).rows

    parts = torch.cat([losses(slice(first, first + 12)) for first in range(0, rows, 12)])
    torch.testing.assert_close(parts, losses(slice(0, rows)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("total", "share"), [(256, 0.25), (100, 0.3), (7, 0.5), (10, 0.125)])
def test_reflow_examples_are_counted_on_the_global_batch_and_spread_over_it(total: int, share: float) -> None:
    """Any part of the batch has its share of them, to within one row."""
    method, networks = LiveReflow(share=share, generation_steps=1), Networks(Toy.make(1))
    data = torch.zeros(total, WIDTH)

    def reflow(part: slice) -> Tensor:
        draw, batch = Draw(Keys(0), 0, total, part), Batch(data[part], data[part])
        return method.targets(networks, batch, draw, PhaseProgress(0, 1)).tag == 1

    rows = reflow(slice(0, total))
    assert int(rows.sum()) == round(total * share)
    for first in range(total):
        for stop in range(first + 1, total + 1, 17):
            part = reflow(slice(first, stop))
            assert torch.equal(part, rows[first:stop])
            assert abs(int(part.sum()) - share * (stop - first)) <= 1
