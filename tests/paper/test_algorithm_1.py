"""Algorithm 1 of Frans et al. 2024, example by example in NumPy, against the vectorised objective on the same draws."""

import numpy as np
import pytest
import torch

from anystep.core.random import Keys
from anystep.objectives import Batch, Draw, Networks, PhaseProgress, Shortcut
from tests.paper.toy import CLASSES, WIDTH, M, Toy

LEVELS = 3  # log2 M


def algorithm_1(
    objective: Shortcut, target: Toy, x0: np.ndarray, x1: np.ndarray, label: np.ndarray, draw: Draw
) -> list[tuple[np.ndarray, float, float, int, np.ndarray]]:
    """Return (x_t, t, d, label, target) of each row, as the box says it; levels alternate from the finest."""
    u, drop = draw.uniform("time").numpy(), draw.uniform("label_drop").numpy()
    boundaries = np.round(np.arange(len(x1) + 1) * objective.share)
    rows, place = [], 0
    count = int(boundaries[-1])
    for i in range(len(x1)):
        if boundaries[i + 1] == boundaries[i]:  # flow-matching row
            t, d = np.floor(u[i] * M) / M, 0.0
            x_t = (1 - t) * x0[i] + t * x1[i]
            c = CLASSES if drop[i] < objective.label_drop else int(label[i])
            rows.append((x_t, t, d, c, x1[i] - x0[i]))
            continue
        level = place % LEVELS if place < count - count % LEVELS else LEVELS - 1  # equal share, remainder to d = 1
        place += 1
        d = 2.0**level / M
        t = np.floor(u[i] / (2 * d)) * 2 * d  # multiples of 2d
        x_t, c = (1 - t) * x0[i] + t * x1[i], int(label[i])
        asked = 0.0 if level == 0 else d  # d = 0 rule at the finest level
        guided = objective.guidance != 1 and (level == 0 or objective.cfg_levels == "all")

        def s(x: np.ndarray, at: float, asked: float = asked, c: int = c, guided: bool = guided) -> np.ndarray:
            v = target.row(x, at, asked, c)
            if guided:
                null = target.row(x, at, asked, CLASSES)
                v = null + objective.guidance * (v - null)
            return v

        a = s(x_t, t)
        x_mid = x_t + d * a
        if objective.clip is not None:
            x_mid = np.clip(x_mid, -objective.clip, objective.clip)
        b = s(x_mid, t + d)
        goal = (a + b) / 2
        if objective.clip is not None:
            goal = np.clip(goal, -objective.clip, objective.clip)
        rows.append((x_t, t, 2 * d, c, goal))
    return rows


@pytest.mark.parametrize(
    "objective",
    [
        Shortcut(M=M),
        Shortcut(M=M, share=0.5, guidance=1.5),
        Shortcut(M=M, share=0.5, guidance=1.5, cfg_levels="all"),
        Shortcut(M=M, share=1.0, clip=1.0, guidance=3.0),
        Shortcut(M=M, share=0.125, label_drop=1.0),
        Shortcut(M=M, share=0.0),
    ],
    ids=lambda o: f"share={o.share:g},W={o.guidance:g},{o.cfg_levels},clip={o.clip}",
)
def test_objective_equals_the_box(objective: Shortcut) -> None:
    rng = np.random.default_rng(0)
    rows = 52
    x0, x1 = rng.normal(size=(2, rows, WIDTH))
    label = rng.integers(0, CLASSES, rows)
    online, target = Toy.make(1), Toy.make(2)
    draw = Draw(Keys(0), step=5, total=rows, rows=slice(0, rows))
    batch = Batch(torch.from_numpy(x1), torch.from_numpy(x0), torch.from_numpy(label))
    made = objective.targets(Networks(online, target), batch, draw, PhaseProgress(0, 1))
    losses = objective.loss(Networks(online, target), batch, draw, PhaseProgress(0, 1))
    for i, (x_t, t, d, c, goal) in enumerate(algorithm_1(objective, target, x0, x1, label, draw)):
        np.testing.assert_allclose(made.query.x_t[i].numpy(), x_t, atol=1e-12)
        assert (float(made.query.t[i]), float(made.query.d[i])) == (t, d)
        assert made.query.condition is not None and int(made.query.condition[i]) == c
        np.testing.assert_allclose(made.target[i].numpy(), goal, atol=1e-12)
        penalty = np.mean((online.row(x_t, t, d, c) - goal) ** 2)
        np.testing.assert_allclose(float(losses.rows[i]), penalty, rtol=1e-5)


def test_parts_of_the_global_batch_are_the_global_batch() -> None:
    """Two ranks (or micro-batches) see the same rows as one process: draws are made for the global batch."""
    rng = np.random.default_rng(0)
    rows, objective = 48, Shortcut(M=M, guidance=1.5)
    x0, x1 = (torch.from_numpy(a) for a in rng.normal(size=(2, rows, WIDTH)))
    label = torch.from_numpy(rng.integers(0, CLASSES, rows))
    networks = Networks(Toy.make(1), Toy.make(2))

    def losses(part: slice) -> torch.Tensor:
        draw = Draw(Keys(0), step=5, total=rows, rows=part)
        return objective.loss(networks, Batch(x1[part], x0[part], label[part]), draw, PhaseProgress(0, 1)).rows

    whole = losses(slice(0, rows))
    parts = torch.cat([losses(slice(first, first + 16)) for first in range(0, rows, 16)])
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)


def test_every_part_of_a_batch_has_every_kind_of_row() -> None:
    """Four ranks of a batch of 256 each get their quarter of self-consistency rows, and every level."""
    objective = Shortcut()
    for first in range(0, 256, 64):
        level = objective.draw_levels(Draw(Keys(0), 0, 256, slice(first, first + 64)), PhaseProgress(0, 1))
        assert int((level >= 0).sum()) == 16
        assert set(level[level >= 0].tolist()) == set(range(7))


@pytest.mark.parametrize(("total", "share"), [(256, 0.25), (64, 0.125), (32, 0.125), (100, 0.3), (7, 0.5)])
def test_levels_have_an_equal_share_and_the_rest_goes_to_one_step(total: int, share: float) -> None:
    level = Shortcut(share=share).draw_levels(Draw(Keys(0), 0, total, slice(0, total)), PhaseProgress(0, 1))
    counts = torch.bincount(level[level >= 0], minlength=7)
    rows = round(total * share)
    assert int(counts.sum()) == rows
    assert counts[:6].tolist() == [rows // 7] * 6
    assert int(counts[6]) == rows // 7 + rows % 7
