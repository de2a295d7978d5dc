"""Losses, weights and samples of five runs are what they were when they were recorded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.golden.runs import RECORDED, STEPS, configs, machine, measured

#: another processor rounds products differently, and twelve updates carry that along
TOLERANCE = {"float32": {"rtol": 2e-3, "atol": 2e-3}, "bfloat16": {"rtol": 3e-2, "atol": 3e-2}}


@pytest.mark.parametrize("version", RECORDED)
@pytest.mark.parametrize("name", configs())
def test_as_recorded(name: str, version: str, tmp_path: Path) -> None:
    path, _, precision = RECORDED[version]
    recorded = json.loads(path.read_text())
    was: dict[str, Any] = recorded["runs"][name]
    now = measured(name, tmp_path / "run", version)
    if recorded["machine"] == machine():
        assert now == was
    torch.testing.assert_close(torch.tensor(now["losses"]), torch.tensor(was["losses"]), **TOLERANCE[precision])
    for steps in STEPS:
        a, b = (torch.tensor(each[f"samples_{steps}"]["first"]) for each in (now, was))
        torch.testing.assert_close(a, b, **TOLERANCE[precision])
