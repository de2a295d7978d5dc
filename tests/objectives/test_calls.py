"""A micro-batch without rows of some kind makes the network calls of one that has them: ranks stay in step."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from anystep.core.random import Keys
from anystep.flow.condition import Condition, ConditionSpec, Entry, rows
from anystep.networks import MLPConfig
from anystep.objectives import (
    OBJECTIVES,
    AlphaFlow,
    Batch,
    Draw,
    ImprovedShortcut,
    LiveReflow,
    MeanFlow,
    Networks,
    Objective,
    PhaseProgress,
    Shortcut,
)

WIDTH, TOTAL = 3, 64
CONDITIONS = ConditionSpec(
    {"label": Entry("label", classes=("a", "b", "c")), "state": Entry("feature", (2,))}, single=False
)
METHODS: list[Objective] = [
    *(method() for method in OBJECTIVES.values()),
    Shortcut(guidance=1.5, M=8, label_drop_rows="all"),
    Shortcut(guidance=1.5, M=8, cfg_levels="all"),
    LiveReflow(guidance=1.5),
    AlphaFlow(shift="network"),
]

#: methods of which some rows have targets of another kind than the rest
WITH_SHARES = (Shortcut, ImprovedShortcut, LiveReflow, MeanFlow, AlphaFlow)


class Watched(nn.Module):
    """Passes calls on to a network, and notes its name, whether gradients are on, and how many rows there are."""

    def __init__(self, name: str, inner: nn.Module, calls: list[tuple[str, bool]], counts: list[int]) -> None:
        super().__init__()
        self.name, self.inner, self.calls, self.counts = name, inner, calls, counts

    def null(self, condition: Condition) -> Condition:
        return self.inner.null(condition)

    def forward(
        self, x: Tensor, t: Tensor, d: Tensor, condition: Condition = None, guidance: Tensor | None = None
    ) -> Tensor:
        self.calls.append((self.name, torch.is_grad_enabled()))
        self.counts.append(len(x))
        return self.inner(x, t, d, condition, guidance)


def batch_of(total: int) -> Batch:
    source = torch.Generator().manual_seed(0)
    x1, x0 = torch.randn(2, total, WIDTH, generator=source)
    state = torch.randn(total, 2, generator=source)
    return Batch(x1, x0, {"label": torch.arange(total) % 3, "state": state})


def calls(method: Objective, index: int, part: slice) -> tuple[list[tuple[str, bool]], list[int]]:
    """Return the calls that an update with gradients makes of our rows ``part``, and how many rows each had."""
    torch.manual_seed(0)
    encoding = "continuous" if method.any_step else "log2"
    config = MLPConfig(hidden=8, depth=1, step_encoding=encoding, guidance_input=method.takes_guidance)  # type: ignore[arg-type]
    config = replace(config, prediction=method.predicts)  # type: ignore[arg-type]
    made: list[tuple[str, bool]] = []
    counts: list[int] = []
    networks = [
        Watched(name, config.build((WIDTH,), CONDITIONS, method.M), made, counts)
        for name in ("online", "target", "teacher")
    ]
    whole = batch_of(TOTAL)
    ours = Batch(whole.x1[part], whole.x0[part], rows(whole.condition, part))
    losses = method.loss(Networks(*networks), ours, Draw(Keys(0), 3, TOTAL, part), PhaseProgress(50, 100, index))
    losses.rows.sum().backward()
    online, others = networks[0], networks[1:]
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in online.inner.enter.parameters())
    assert all(p.grad is None for network in others for p in network.parameters())
    return made, counts


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_every_part_of_a_batch_makes_the_same_calls(method: Objective) -> None:
    for phase in method.phases():
        size = phase.objective.group
        found = [calls(phase.objective, phase.index, slice(n, n + size)) for n in range(0, 16, size)]
        sequence = found[0][0]
        assert sequence and sequence[-1] == ("online", True)
        assert all(made == sequence for made, _ in found)
        if isinstance(phase.objective, WITH_SHARES):
            kinds = {tuple(counts) for _, counts in found}
            assert len(kinds) > 1 and any(0 in counts for counts in kinds)  # some parts had no rows of a kind


def test_a_share_of_zero_makes_no_call_for_it() -> None:
    made, counts = calls(Shortcut(share=0.0), 0, slice(0, 8))
    assert (made, counts) == ([("online", True)], [8])
