"""Penalties that any method with the squared error can have, and how a config and a run hold them."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.same import assert_same_tensors, contents
from torch import Tensor

from anystep.core.errors import UsageError
from anystep.flow.penalties import PENALTIES, WEIGHTS, Haar, NoWeight, Own, OwnErrorWeight, PseudoHuber, Squared
from anystep.flow.query import Query
from anystep.objectives import ImprovedConsistencyTraining, Shortcut
from anystep.run.config import Config, from_json, to_json
from anystep.training.trainer import train

unused: Any = None


def made(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_pseudo_huber_is_icts_formula() -> None:
    """iCT charges x1hat, 1 - t times as far off as the velocity: the same at t = 0."""
    ict, penalty = ImprovedConsistencyTraining(), PseudoHuber()
    assert ict.huber == penalty.c
    prediction, target = made(0, 5, 3, 8, 8), made(1, 5, 3, 8, 8)
    query = Query(x_t=target, t=torch.zeros(5), d=torch.zeros(5))
    rows = penalty.rows(unused, prediction, target, query, unused)
    torch.testing.assert_close(rows, ict.error(prediction, target, query), rtol=0, atol=0)
    late = replace(query, t=torch.full((5,), 0.75))
    rows = penalty.rows(unused, prediction / 4, target / 4, query, unused)
    torch.testing.assert_close(rows, ict.error(prediction, target, late), rtol=1e-6, atol=0)
    c = 0.00108 * math.sqrt(192)
    exact = ((prediction / 4 - target / 4).double().square().sum((1, 2, 3)) + c**2).sqrt() - c
    torch.testing.assert_close(rows.double(), exact, rtol=1e-5, atol=0)


def test_squared_is_a_shortcut_models_own_error(tiny: Config, tmp_path: Path) -> None:
    assert isinstance(tiny.objective, Shortcut)
    train(tiny, tmp_path / "own")
    train(replace(tiny, penalty=Squared()), tmp_path / "squared")
    assert_same_tensors(tmp_path / "own", tmp_path / "squared")
    assert contents(tmp_path / "own")["log"] == contents(tmp_path / "squared")["log"]


def test_the_distance_makes_rows_far_off_pull_no_harder_than_others() -> None:
    """The gradient of a row is its error over the distance: of length 1 beyond c, whatever the error."""
    prediction = torch.tensor([[3.0, 4.0], [300.0, 400.0]], requires_grad=True)
    PseudoHuber(c=0.01).rows(unused, prediction, torch.zeros(2, 2), unused, unused).sum().backward()
    torch.testing.assert_close(prediction.grad, torch.tensor([[0.6, 0.8]] * 2), rtol=1e-4, atol=0)


def test_every_name_is_a_class_that_comes_back_from_json(small: Config) -> None:
    for section, registry in (("penalty", PENALTIES), ("weight", WEIGHTS)):
        for name, kind in registry.items():
            values = to_json(small) | {section: {"name": name}}
            assert getattr(from_json(values), section) == kind()
    assert (small.penalty, small.weight) == (Own(), NoWeight())


@pytest.mark.parametrize("section", ["penalty", "weight"])
def test_moment_matching_has_no_error_of_a_row(section: str) -> None:
    from anystep.recipes import find_recipe

    config = find_recipe("digits-imm")
    part: Any = {"penalty": Squared(), "weight": OwnErrorWeight()}[section]
    words = f"^{section} {part.name} acts on the error of each example, and imm compares groups of examples: remove"
    with pytest.raises(UsageError, match=words):
        replace(config, **{section: part})


@pytest.mark.parametrize("c", [0.0, -1.0, math.inf, math.nan])
def test_a_radius_that_cannot_be_is_refused(c: float) -> None:
    with pytest.raises(ValueError, match=r"^penalty\.c must be greater than 0 and finite, got"):
        PseudoHuber(c=c)


def test_a_penalty_learns_from_updates_alone_and_keeps_nothing_that_others_need(tiny: Config, tmp_path: Path) -> None:
    """A run without statistics has no group of them in its checkpoint, one with Haar bands has."""
    for name, penalty in (("own", Own()), ("haar", Haar())):
        train(replace(tiny, penalty=penalty), tmp_path / name)
        (last,) = (tmp_path / name / "checkpoints").glob("step-00000006")
        assert (last / "penalty.safetensors").exists() == (name == "haar")
