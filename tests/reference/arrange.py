"""The reference's batch in our order.

Theirs: the first B/every rows are self-consistency rows, coarser with the row number, made of the first images; flow
rows follow, made of the first images again (the last ones are never used). Ours: each row is its own image, and the
objective says which rows are which.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tests.reference.recorded import RecordedDraw, floats, image, recorded_draw
from torch import Tensor

from anystep.objectives import Batch, PhaseProgress, Shortcut


@dataclass(frozen=True)
class Recorded:
    """What the reference fed and drew in one step: NCHW images, row i of ``boot_*`` being its i-th bootstrap row."""

    images: Tensor
    labels: Tensor
    boot_x0: Tensor
    boot_t: Tensor
    boot_dt: Tensor
    flow_x0: Tensor
    flow_t: Tensor
    dropped: Tensor

    @classmethod
    def of(cls, images: Tensor, labels: Tensor, drawn: Mapping[str, Any], flow_x0: Tensor, dt_base: Any) -> "Recorded":
        """Read the ``draw/*`` arrays of a case; ``dt_base`` is its log2(1/d), bootstrap rows first."""
        boot = len(drawn["x0_boot"])
        boot_dt = floats(dt_base)[:boot]
        return cls(
            images,
            labels,
            image(drawn["x0_boot"]),
            floats(drawn["t_boot_int"]) / torch.exp2(boot_dt),
            boot_dt,
            flow_x0,
            floats(drawn["t_flow_int"]) / 128,
            torch.from_numpy(drawn["label_drop"]),
        )


def arrange(recorded: Recorded, objective: Shortcut) -> tuple[Batch, RecordedDraw, Tensor]:
    """Return our batch, the draw that makes the recorded choices, and which row of theirs each of our rows is."""
    total, boot = len(recorded.images), len(recorded.boot_x0)
    flow = total - boot
    level = 6 - recorded.boot_dt.long()  # 2d = 2^-dt_base = 2^(level + 1) / 128
    theirs = order_of_rows(objective, total, level)

    def both(boot_rows: Tensor, flow_rows: Tensor) -> Tensor:
        """Return their rows, bootstrap first, in our order."""
        return torch.cat([boot_rows[:boot], flow_rows[:flow]])[theirs]

    # a time in the middle of its cell: the objective rounds it down to the grid that the row is on
    boot_u, flow_u = recorded.boot_t + torch.exp2(-recorded.boot_dt) / 2, recorded.flow_t + 0.5 / 128
    kept = torch.where(recorded.dropped, 0.0, 0.999)
    draw = recorded_draw(time=both(boot_u, flow_u), label_drop=both(kept, kept), level=both((level + 0.5) / 7, kept))
    x1 = both(recorded.images, recorded.images)
    x0 = both(recorded.boot_x0, recorded.flow_x0)
    return Batch(x1, x0, both(recorded.labels, recorded.labels)), draw, theirs


def order_of_rows(objective: Shortcut, total: int, level: Tensor) -> Tensor:
    """Return for each of our rows the number of theirs, given the level of each of their bootstrap rows.

    With ``level="equal"`` each of our self-consistency rows takes the next of theirs at the level that our objective
    gives it (so the two must share out levels alike); with ``"random"`` they come in turn and bring their level along.
    """
    ours = objective.draw_levels(recorded_draw(level=torch.zeros(total)), PhaseProgress(0, 1))  # [B], negative: flow
    flow, turn = iter(range(len(level), total)), iter(range(len(level)))
    waiting = {n: [i for i, at in enumerate(level.tolist()) if at == n] for n in range(7)}
    rows = []
    for mine in ours.tolist():
        if mine < 0:
            rows.append(next(flow))
        else:
            rows.append(next(turn) if objective.level == "random" else waiting[mine].pop(0))
    return torch.tensor(rows)
