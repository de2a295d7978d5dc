"""P1's Figure 2 as an effect: one step of flow matching misses the modes, one step of a shortcut model finds them."""

import json
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "two_d.py"


def test_one_shortcut_step_is_nearer_to_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    pytest.importorskip("matplotlib")
    words = [str(EXAMPLE), "--out", str(tmp_path), "--images", "50000", "--num", "200"]
    monkeypatch.setattr("anystep.training.preview.VECTORS", 0)  # no previews
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    distance = json.loads((tmp_path / "scores.json").read_text())["energy_distance"]
    assert distance["shortcut"]["1"] < 0.5 * distance["flow_matching"]["1"]
    assert distance["flow_matching"]["128"] < 0.5 * distance["flow_matching"]["1"]
    assert (tmp_path / "two_d.png").stat().st_size > 0
    assert "energy distance" in capsys.readouterr().out
