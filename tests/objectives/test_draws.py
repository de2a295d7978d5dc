"""Random quantities are keyed by (seed, step, stream) and made for the global batch."""

import pytest
import torch
from scipy import stats
from tests.paper.smooth import Smooth, part, smooth_batch

from anystep.core.random import Keys
from anystep.objectives import OBJECTIVES, Draw, ImprovedShortcut, Networks, Objective, PhaseProgress, Shortcut

N = 20_000
ALL = slice(0, N)


def uniform(seed: int = 0, step: int = 0, stream: str = "time") -> torch.Tensor:
    return Draw(Keys(seed), step, N, ALL).uniform(stream)


@pytest.mark.parametrize("other", [{"seed": 1}, {"step": 1}, {"stream": "level"}], ids=str)
def test_another_seed_step_or_stream_is_independent(other) -> None:
    """Correlation of N independent pairs is normal with deviation 1/sqrt(N): five of them are never seen."""
    pair = torch.stack([uniform(), uniform(**other)])
    assert abs(float(torch.corrcoef(pair)[0, 1])) < 5 / N**0.5


def test_the_same_key_gives_the_same_numbers_whatever_was_drawn_before() -> None:
    draw = Draw(Keys(3), 7, N, ALL)
    first = draw.uniform("time")
    draw.normal("noise", (2,))
    torch.manual_seed(0)
    torch.rand(5)
    assert torch.equal(draw.uniform("time"), first)


def test_draws_have_their_laws() -> None:
    draw = Draw(Keys(0), 0, N, ALL)
    assert stats.kstest(draw.uniform("time").numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(draw.normal("noise", (3,)).flatten().numpy(), "norm").pvalue > 1e-3


def test_a_rank_has_its_rows_of_the_global_batch() -> None:
    whole = Draw(Keys(0), 5, 64, slice(0, 64))
    parts = [Draw(Keys(0), 5, 64, slice(first, first + 16)) for first in range(0, 64, 16)]
    for stream in ("time", "label_drop"):
        assert torch.equal(torch.cat([part.uniform(stream) for part in parts]), whole.uniform(stream))
    noise = torch.cat([part.normal("noise", (1, 4, 4)) for part in parts])
    assert torch.equal(noise, whole.normal("noise", (1, 4, 4)))


LEVERS: list[Objective] = [
    Shortcut(M=16, share=0.5, level="large", share_start=0.0),
    Shortcut(M=16, share=0.5, level="random", roll_out=4),
    ImprovedShortcut(M=16, share=0.25, roll_out=2, through_state=True, share_start=0.5),
]


@pytest.mark.parametrize("objective", [*(method() for method in OBJECTIVES.values()), *LEVERS], ids=repr)
def test_a_micro_batch_has_the_losses_of_its_rows_of_the_global_batch(objective: Objective) -> None:
    progress = PhaseProgress(6, 10)
    networks = Networks(Smooth.make(1), Smooth.make(2), Smooth.make(3))
    batch, draw = smooth_batch(64)
    whole = objective.loss(networks, batch, draw, progress)
    parts = [objective.loss(networks, *part(batch, draw, slice(n, n + 16)), progress) for n in range(0, 64, 16)]
    for name in ("rows", "t", "tag"):
        joined = torch.cat([getattr(losses, name) for losses in parts])
        torch.testing.assert_close(joined, getattr(whole, name), rtol=1e-6, atol=1e-6)


def test_draws_leave_torchs_own_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Draw(Keys(0), 0, 8, slice(0, 8)).normal("noise", (2,))
    assert torch.equal(torch.rand(3), expected)
