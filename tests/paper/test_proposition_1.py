"""Proposition 1 of improved shortcut models: guidance at every level compounds, W^log2(M) in all."""

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from anystep.objectives import Shortcut
from tests.paper.compounding import LEVELS, Field, M, Rule, affine, average_velocity, clusters, euler, ratios
from tests.toys import WithNull

W = 1.5
PLANE = np.random.default_rng(0).normal(size=(32, 2))
LINE = np.random.default_rng(1).normal(size=(256, 1))


@pytest.mark.parametrize("scale", [0.5, W, 2.0])
def test_of_an_affine_field_guidance_at_every_level_is_one_of_its_seventh_power(scale: float) -> None:
    """Eq. 6 as it stands, with = for the paper's ~: N = 128 smallest steps, guided by W^log2(N) along their own way."""
    one_step = average_velocity(affine, scale, "all", PLANE, 0.0, True)
    np.testing.assert_allclose(one_step, euler(affine, scale**LEVELS, PLANE), rtol=0, atol=1e-9)


@pytest.mark.parametrize("rule", ["finest", "intrinsic"])
def test_guidance_at_the_finest_level_or_as_an_input_is_one_of_its_own_scale(rule: Rule) -> None:
    one_step = average_velocity(affine, W, rule, PLANE, 0.0, True)
    np.testing.assert_allclose(one_step, euler(affine, W, PLANE), rtol=0, atol=1e-9)


def test_the_difference_of_label_and_null_grows_by_1_5_a_level_or_stays() -> None:
    """To 1.5^7 = 17.086 at d = 1."""
    every = [W**k for k in range(1, 8)]
    np.testing.assert_allclose(ratios(affine, W, "all", PLANE), every, rtol=0, atol=1e-6)
    np.testing.assert_allclose(ratios(affine, W, "finest", PLANE), [W] * 7, rtol=0, atol=1e-6)
    np.testing.assert_allclose(ratios(affine, W, "intrinsic", PLANE), [W] * 7, rtol=0, atol=1e-6)
    assert round(every[-1], 3) == 17.086


def test_without_guidance_the_rules_are_the_same() -> None:
    for rule in get_args(Rule):
        np.testing.assert_allclose(ratios(affine, 1.0, rule, PLANE), [1.0] * 7, rtol=0, atol=1e-12)


@pytest.mark.parametrize("std", [1.0, 0.5, 0.2])
def test_of_clusters_it_compounds_over_small_steps_and_saturates_over_large_ones(std: float) -> None:
    """Their velocities are no affine functions: near its own cluster null says what the label says."""
    every, finest = (ratios(clusters(std), W, rule, LINE) for rule in ("all", "finest"))
    np.testing.assert_allclose(every[:3], [W, W**2, W**3], rtol=3e-3)
    assert all(value < W**k for k, value in enumerate(every[1:], 2))
    assert max(every) < 7 < W**5
    assert every[-1] < 0.4 * W**7
    assert all(a > b for a, b in zip(every[1:], finest[1:], strict=True))
    assert max(finest) <= W


def test_the_narrower_the_clusters_the_sooner_it_saturates() -> None:
    last = [ratios(clusters(std), W, "all", LINE)[-1] for std in (1.0, 0.5, 0.2)]
    assert last == sorted(last, reverse=True)


@pytest.mark.parametrize("field", [affine, clusters(0.5)], ids=["affine", "clusters"])
def test_intrinsic_guidance_is_that_of_the_finest_level_of_any_field(field: Field) -> None:
    """Learned exactly they are one function, the first for any W: only in a trained model do they differ."""
    x = PLANE if field is affine else LINE
    for level in (1, 2, LEVELS):
        pair = [average_velocity(field, W, rule, x, 0.0, True, level) for rule in ("finest", "intrinsic")]
        np.testing.assert_allclose(*pair, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", ["all", "finest"])
def test_the_objective_makes_these_targets(rule: Rule) -> None:
    """`Shortcut.two_half_steps` at the largest level, of a network that is right about the levels below."""

    class Network(WithNull):
        num_classes = 1

        def __call__(
            self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance: Tensor | None = None
        ) -> Tensor:
            assert label is not None
            rows = [
                average_velocity(clusters(0.5), W, rule, row[None], time, c == 0, round(np.log2(step * M)))[0]
                for row, time, step, c in zip(x.numpy(), t.tolist(), d.tolist(), label.tolist(), strict=True)
            ]
            return torch.from_numpy(np.stack(rows))

    x = torch.from_numpy(LINE[:8])
    zero, d, level = torch.zeros(8), torch.full((8,), 0.5), torch.full((8,), LEVELS - 1)
    target = Shortcut(guidance=W, cfg_levels=rule).two_half_steps(Network(), x, zero, d, level, level * 0)  # type: ignore[arg-type]
    np.testing.assert_allclose(target, average_velocity(clusters(0.5), W, rule, LINE[:8], 0.0, True), atol=1e-12)
