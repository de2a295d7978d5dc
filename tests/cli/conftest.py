"""Runs of a second or two, trained once for all tests of the command line, and a way to run a command."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from anystep.cli.main import main

TINY = (
    "--images 320 --batch 32 --device cpu --network.hidden 16 --network.depth 1 --preview.num 0 "
    "--optimizer.lr 0.01 --optimizer.warmup 0 --ema.evaluation 0.5 --objective.share 0.25"
)
DIT = f"{TINY} --network.heads 2 --network.patch 4 --objective.share 0.25"


@dataclass(frozen=True)
class Said:
    """What a command left behind: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


Command = Callable[[str], Said]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds `digits` (classes), `guided` (trained with guidance) and `points` (no classes)."""
    place = tmp_path_factory.mktemp("runs")
    for words in (
        f"digits-shortcut {DIT} --out {place}/digits",
        f"digits-shortcut {DIT} --out {place}/guided --objective.guidance 2",
        f"eight_gaussians-shortcut {TINY} --out {place}/points",
    ):
        assert main(["train", *words.split()]) == 0
    return place


@pytest.fixture
def command(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `anystep ...` in an empty folder where RUNS stands for the trained runs and DIT for a small network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path.parent / f"{tmp_path.name}-cache"))
    monkeypatch.setenv("COLUMNS", "100")

    def run(words: str) -> Said:
        capsys.readouterr()
        code = main(re.sub("RUNS", str(runs), words).replace("DIT", DIT).replace("TINY", TINY).split())
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons without figures, which take longer than the rest of them."""
    monkeypatch.setattr("anystep.cli.compare.can_draw", lambda: False)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(12, 8, 8, 3), dtype=np.uint8)
