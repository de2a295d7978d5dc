"""What an update costs is what its forward passes count: each of a row 1, of those with a gradient 3."""

import pytest
import torch
from tests.toys import WithNull
from torch import Tensor

from anystep.core.random import Keys
from anystep.objectives import (
    OBJECTIVES,
    Batch,
    ConsistencyDistillation,
    Draw,
    ImprovedShortcut,
    LiveReflow,
    Networks,
    Objective,
    PhaseProgress,
    ProgressiveDistillation,
    Shortcut,
)
from anystep.objectives.base import Phase

ROWS, CLASSES, STEPS = 840, 3, 40


class Counting(WithNull, torch.nn.Module):
    """A network of one parameter that counts rows; a pass in forward mode carries a second one, the tangent's."""

    num_classes = CLASSES

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(0.1))
        self.units = 0

    def forward(
        self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance: Tensor | None = None
    ) -> Tensor:
        twice = torch._C._functorch.maybe_current_level() is not None
        self.units += len(x) * (3 if torch.is_grad_enabled() else 2 if twice else 1)
        return torch.tanh(self.a * x + (t - d).reshape(-1, 1))


def spent(phase: Phase) -> float:
    """Forward units an update of flow matching costs 1, on average over the phase."""
    networks = [Counting() for _ in range(3)]
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        x0, x1 = torch.randn(2, ROWS, 5, generator=generator)
        batch = Batch(x1=x1, x0=x0, condition=torch.randint(0, CLASSES, (ROWS,), generator=generator))
        draw = Draw(Keys(0), step=step, total=ROWS, rows=slice(0, ROWS))
        phase.objective.loss(Networks(*networks), batch, draw, PhaseProgress(step, STEPS, phase.index))
    return sum(network.units for network in networks) / (3 * ROWS * STEPS)


GUIDED: list[Objective] = [
    Shortcut(guidance=1.5, M=8),
    Shortcut(guidance=1.5, M=8, cfg_levels="all"),
    ProgressiveDistillation(guidance=1.5, M=8),
    ConsistencyDistillation(guidance=1.5),
    LiveReflow(guidance=1.5),
]
LEVERS: list[Objective] = [
    Shortcut(M=16, level="large", share=2 / 7, guidance=1.5),
    Shortcut(M=8, share=0.5, share_start=0.0, share_change=(0.25, 0.25)),
    Shortcut(M=8, share=0.5, roll_out=2),
    Shortcut(M=8, share=0.4, roll_out=4, through_state=True),
    ImprovedShortcut(M=8, share=0.5, guided_share=0.25, roll_out=2),
]


@pytest.mark.parametrize("objective", [*(method() for method in OBJECTIVES.values()), *GUIDED, *LEVERS], ids=repr)
def test_cost_is_what_the_passes_count(objective: Objective) -> None:
    """Exactly, but for alpha-Flow, whose 40 updates are a coarse average over the run."""
    for phase in objective.phases():
        assert spent(phase) == pytest.approx(phase.cost, rel=0.01 if objective.name == "alpha_flow" else 1e-6)
