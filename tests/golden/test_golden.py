"""Losses, weights and samples of five runs are what they were when they were recorded, by version of the keys."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.golden.runs import RECORDED, STEPS, configs, machine, measured

#: another processor rounds products differently, and twelve updates carry that along
TOLERANCE = {"rtol": 2e-3, "atol": 2e-3}


@pytest.mark.parametrize("keys", RECORDED)
@pytest.mark.parametrize("name", configs())
def test_as_recorded(name: str, keys: int, tmp_path: Path) -> None:
    recorded = json.loads(RECORDED[keys].read_text())
    was: dict[str, Any] = recorded["runs"][name]
    now = measured(name, tmp_path / "run", keys)
    if recorded["machine"] == machine():
        assert now == was
    torch.testing.assert_close(torch.tensor(now["losses"]), torch.tensor(was["losses"]), **TOLERANCE)
    for steps in STEPS:
        a, b = (torch.tensor(each[f"samples_{steps}"]["first"]) for each in (now, was))
        torch.testing.assert_close(a, b, **TOLERANCE)
