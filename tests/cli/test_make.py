"""`make` makes its own environment, or says what is needed and leaves nothing behind."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: stands for a Python: `-c` asks for its version, else it makes an environment
OLD = "exit 1"
WITHOUT_ENSUREPIP = 'test "$1" = -c && exit 0; mkdir -p .venv/bin; ln -s /bin/false .venv/bin/python; exit 1'


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (OLD, "anystep needs Python 3.11 or newer"),
        (WITHOUT_ENSUREPIP, "cannot make .venv: ./python needs venv and ens"),
    ],
)
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_without_what_is_needed_no_half_made_environment_stays(tmp_path: Path, script: str, said: str) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "python").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "python").chmod(0o755)
    made = subprocess.run(
        ["make", "demo", "PYTHON=./python"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert made.returncode != 0 and said in made.stderr
    assert not (tmp_path / ".venv").exists()
