"""Loading a run and drawing samples needs no training, no data source and no report."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import torch

import anystep

OLD = Path(__file__).parents[1] / "fixtures" / "runs-0.1.0"
#: rooms that loading must not import, and sources of data
NOT_NEEDED = ("training", "evaluation", "recipes", "comparison", "report", "figures", "cli", "interchange")
SOURCES = ("digits", "emoji", "planar", "folder", "npz", "hub", "images", "image_source", "cache")

PROGRAM = """
import sys, anystep
generator = anystep.load(sys.argv[1], device="cpu")
generator.decode(generator.generate(steps=2, num=3))
print(*(name for name in sys.modules if name.startswith("anystep.") or name in ("PIL", "sklearn", "rich", "tyro")))
"""


def test_only_what_sampling_needs_is_imported() -> None:
    command = [sys.executable, "-c", PROGRAM, str(OLD / "digits")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    assert not found & {"PIL", "sklearn", "rich", "tyro"}
    assert not {name for name in found if name.split(".")[1:2] and name.split(".")[1] in NOT_NEEDED}
    assert not found & {f"anystep.data.{name}" for name in SOURCES}


def test_a_run_whose_data_source_is_not_here_still_samples(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(OLD / "moons", run)
    values = json.loads((run / "config.json").read_text())
    values["data"] = {"name": "somebodys_module:TheirData", "path": "gone"}
    (run / "config.json").write_text(json.dumps(values))
    before, after = (anystep.load(path, device="cpu").generate(steps=2, num=4) for path in (OLD / "moons", run))
    assert torch.equal(before, after)
