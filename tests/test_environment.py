"""What importing the package does to the environment: threads of torch sleep while they wait, unless the user chose."""

import os
import subprocess
import sys

import pytest

SHOW = "import os; print(os.environ.get('OMP_WAIT_POLICY'))"


def python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    without = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=without | environment)


@pytest.mark.parametrize(
    ("program", "environment", "policy"),
    [
        ("import anystep", {}, "PASSIVE"),
        ("import anystep", {"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"),
        ("import torch, anystep", {}, "None"),
    ],
    ids=["unset", "chosen by the user", "torch is loaded already"],
)
def test_the_policy_is_set_before_torch_is_loaded(program: str, environment: dict[str, str], policy: str) -> None:
    assert python(f"{program}; {SHOW}", **environment).stdout.strip() == policy


@pytest.mark.skipif(sys.platform != "linux", reason="the OpenMP of torch's wheels for Linux prints its settings")
def test_torchs_openmp_reads_it() -> None:
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in python("import anystep, torch", OMP_DISPLAY_ENV="true").stderr
