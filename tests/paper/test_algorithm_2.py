"""Algorithm 2 of Frans et al. 2024 as a loop in NumPy against the sampler, and what other budgets must be."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anystep.flow.ladder import Ladder, Step, instantaneous_schedule, shortcut_schedule
from anystep.flow.sampling import interpolate_noise, sample
from tests.guidance import scales
from tests.paper.toy import CLASSES, WIDTH, M, Toy


def algorithm_2(network: Toy, x: np.ndarray, c: int, steps: int) -> np.ndarray:
    d, t = 1 / steps, 0.0
    for _ in range(steps):
        x = x + network.row(x, t, d, c) * d
        t = t + d
    return x


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_sampler_equals_the_box(steps: int) -> None:
    network, rng = Toy.make(3), np.random.default_rng(0)
    noise, label = rng.normal(size=(6, WIDTH)), rng.integers(0, CLASSES, 6)
    drawn = sample(
        network,
        torch.from_numpy(noise),
        steps=steps,
        condition=torch.from_numpy(label),
        schedule=lambda n: shortcut_schedule(n, Ladder(M)),
    )
    for i in range(6):
        np.testing.assert_allclose(drawn[i].numpy(), algorithm_2(network, noise[i], int(label[i]), steps), atol=1e-12)


@given(st.integers(1, 300), st.sampled_from(["small_last", "small_first"]))
def test_a_budget_is_made_of_that_many_dyadic_steps(steps: int, order: str) -> None:
    """They sum to 1, each starts at a multiple of its own size, and sizes differ by a factor of two at most."""
    lengths = [step.length for step in shortcut_schedule(steps, Ladder(512), order)]  # type: ignore[arg-type]
    assert len(lengths) == steps
    assert sum(lengths) == 1
    t = 0.0
    for length in lengths:
        assert np.log2(length) == round(np.log2(length))
        assert (t / length) == int(t / length)
        t += length
    assert max(lengths) <= 2 * min(lengths)
    assert lengths == sorted(lengths, reverse=order == "small_last")


def test_three_steps() -> None:
    assert [step.length for step in shortcut_schedule(3)] == [0.5, 0.25, 0.25]
    assert [step.length for step in shortcut_schedule(3, order="small_first")] == [0.25, 0.25, 0.5]


def test_the_finest_steps_are_asked_for_as_instantaneous() -> None:
    """At d = 1/M training uses d = 0 (section 3.1), so sampling does too; beyond M it is plain Euler."""
    assert {step.d for step in shortcut_schedule(128, Ladder(128))} == {0.0}
    assert {step.d for step in shortcut_schedule(96, Ladder(128))} == {1 / 64, 0.0}
    assert shortcut_schedule(200, Ladder(128)) == instantaneous_schedule(200)


def test_guidance_is_two_passes_combined() -> None:
    network, x = Toy.make(3), torch.randn(4, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    label, null = torch.tensor([0, 1, 2, 0]), torch.full((4,), CLASSES)
    step = [Step(0.25, 0.5, 0.5)]
    conditional, unconditional, guided = (
        sample(network, x, steps=step, condition=c, guidance=w) - x
        for c, w in ((label, 1.0), (null, 1.0), (label, 2.5))
    )
    torch.testing.assert_close(guided, unconditional + 2.5 * (conditional - unconditional))
    torch.testing.assert_close(sample(network, x, steps=step, condition=label, guidance=0.0) - x, unconditional)


def test_guidance_may_differ_by_step() -> None:
    network, x, label = Toy.make(3), torch.ones(2, WIDTH), torch.tensor([0, 1])
    first, second = Step(0.0, 0.5, 0.5), Step(0.5, 0.5, 0.5)
    whole = sample(network, x, steps=[first, second], condition=label, guidance=[1.0, 2.0])
    half = sample(network, x, steps=[first], condition=label)
    torch.testing.assert_close(whole, sample(network, half, steps=[second], condition=label, guidance=2.0))


def test_the_callback_sees_every_state() -> None:
    network, x, seen = Toy.make(3), torch.ones(2, WIDTH), []
    end = sample(network, x, steps=4, callback=lambda n, step, state: seen.append((n, step.t, state)))
    assert [(n, t) for n, t, _ in seen] == [(0, 0.0), (1, 0.25), (2, 0.5), (3, 0.75)]
    assert torch.equal(seen[-1][2], end)


def test_interpolation_preserves_variance_and_has_the_noises_as_ends() -> None:
    """Frans et al. 2024, eq. 6: n x_a + sqrt(1 - n^2) x_b."""
    a, b = torch.randn(2, 50_000, generator=torch.Generator().manual_seed(0))
    mixed = interpolate_noise(a, b, 5)
    torch.testing.assert_close(mixed[0], b, atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed[-1], a, atol=1e-6, rtol=0)
    assert (mixed.var(1) - 1).abs().max() < 0.02
    n = np.sin(np.pi / 8)
    torch.testing.assert_close(mixed[1], n * a + np.sqrt(1 - n**2) * b)


@pytest.mark.parametrize("steps", [0, -3, True, 2.0])
def test_impossible_budgets_are_refused(steps: object) -> None:
    with pytest.raises(ValueError, match="steps must be an integer of at least 1"):
        shortcut_schedule(steps)  # type: ignore[arg-type]


def test_guidance_of_an_unconditional_network_is_refused() -> None:
    class Unconditional:
        def __call__(self, x: torch.Tensor, *rest: object) -> torch.Tensor:
            return x

    with pytest.raises(ValueError, match="guidance needs a condition"):
        sample(Unconditional(), torch.ones(1, 2), guidance=2.0)


def test_guiding_twice_is_refused_but_the_unguided_branch_is_not() -> None:
    """Steps d > 0 of a model trained with guidance have it; 128 steps at d = 0 need it."""
    from anystep.objectives import Shortcut

    objective = Shortcut(guidance=1.5)
    few, many = objective.schedule(4), objective.schedule(128)
    assert scales(objective, few, None) == [1.0] * 4
    assert scales(objective, many, None) == [1.5] * 128
    assert scales(objective, many, 2.0) == [2.0] * 128
    assert scales(objective, few, 1.0) == [1.0] * 4
    with pytest.raises(ValueError, match="guide twice"):
        scales(objective, few, 1.5)
    assert scales(objective, few, 1.5, twice=True) == [1.5] * 4


def test_a_budget_may_be_a_numpy_integer() -> None:
    network, x = Toy.make(3), torch.ones(2, WIDTH)
    assert torch.equal(sample(network, x, steps=np.int64(4)), sample(network, x, steps=4))  # type: ignore[arg-type]
