"""What a newcomer waits for: the demo in a fresh clone, and the first signs of life of a run on a folder of pictures.

python benchmarks/first_hour.py --data PICTURES

Nothing else should be running. The clone, its environment and the runs are in a temporary folder. `--only` makes one of
the two parts again and keeps the other part of the committed result.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from record import RESULTS, write

ROOT = Path(__file__).parents[1]
RECIPE = "folder32-shortcut"
LOSS = re.compile(r"loss .*flow ([\d.]+)")


def timed(*command: str, cwd: Path) -> float:
    """Run a command; return its seconds."""
    started = time.monotonic()
    subprocess.run(command, cwd=cwd, check=True)
    return round(time.monotonic() - started, 1)


def demo(folder: Path) -> dict[str, Any]:
    """Install from nothing and run `make demo`; return the seconds of both and the scores."""
    clone = folder / "anystep"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    seconds = {"install": timed("make", ".venv/.installed-report", cwd=clone), "demo": timed("make", "demo", cwd=clone)}
    record = json.loads((clone / "runs/demo/compare.json").read_text())
    scores = [
        {name: score[name] for name in ("method", "steps", "frechet", "recall", "accuracy")}
        for score in record["scores"]
    ]
    configs = sorted((clone / "runs/demo").glob("*/config.json"))
    precision = {path.parent.name: json.loads(path.read_text())["training"]["precision"] for path in configs}
    return {"seconds": seconds, "precision": precision, "scores": scores}


def pictures(data: Path, run: Path) -> dict[str, Any]:
    """Train the recipe for a folder; return the seconds until its first loss, checkpoint, preview, and its end."""
    command = [sys.executable, "-m", "anystep", "train", RECIPE, "--data.path", str(data), "--out", str(run)]
    first: dict[str, float] = {}
    header: dict[str, str] = {}
    started, losses = time.monotonic(), list[float]()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), False)
        while process.poll() is None:
            line = process.stderr.readline()
            now = round(time.monotonic() - started, 1)
            if found := LOSS.search(line):
                first.setdefault("loss", now)
                losses.append(float(found[1]))
            elif line and "loss" not in first:
                name, _, text = line.strip().partition("  ")
                header[name] = text.strip()
            for name in ("checkpoints", "previews"):
                if any(path.name.startswith("step-") for path in (run / name).glob("*")):
                    first.setdefault(name.removesuffix("s"), now)
            if not line:
                time.sleep(0.1)
    if process.returncode:
        raise SystemExit(process.returncode)
    total = round(time.monotonic() - started, 1)
    expected = {name: header[name] for name in ("data", "network", "training", "time")}
    expected["data"] = expected["data"].rpartition("/")[2]
    return {"recipe": RECIPE, "header": expected, "seconds": first | {"complete": total}, "flow_loss": losses[-1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of pictures, a sub-folder a class")
    parser.add_argument("--only", choices=["demo", "pictures"])
    parser.add_argument("--run", type=Path, help="where the run on pictures stays; default: a temporary folder")
    args = parser.parse_args()
    sys.argv = [sys.argv[0], "--data", "PICTURES", *(["--only", args.only] if args.only else [])]  # no path is recorded
    stored, results = RESULTS / "first_hour.json", dict[str, Any]()
    if args.only and stored.exists():
        results = json.loads(stored.read_text())["results"]
    with tempfile.TemporaryDirectory() as folder:
        parts: Mapping[str, Any] = {
            "demo": lambda: demo(Path(folder)),
            "pictures": lambda: pictures(args.data, args.run or Path(folder) / "run"),
        }
        for name, part in parts.items():
            if args.only in {None, name}:
                results[name] = part()
    write("first_hour", {"seconds": "wall clock, nothing else running"}, results)


if __name__ == "__main__":
    main()
