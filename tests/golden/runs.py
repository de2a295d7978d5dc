"""Five short runs whose losses and samples are recorded, so that a change of the code that must not alter results can
show that it does not.

    python -m tests.golden.runs              compare with all files, bit for bit
    python -m tests.golden.runs --record 2   write recorded_2.json

`recorded.json` was written by anystep 0.1.0 and holds the runs with version 1 of the random keys, `recorded_2.json`
those with version 2, and `recorded_bfloat16.json` these in bfloat16, which precision auto is on some machines. Equal
bits are expected on the processor and torch release that a file names; elsewhere products are rounded differently, and
`test_golden.py` compares with a tolerance.
"""

import hashlib
import json
import platform
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from anystep import load, train
from anystep.core import random
from anystep.data import Digits, TwoMoons
from anystep.flow.coupling import CouplingConfig
from anystep.flow.penalties import Haar
from anystep.networks import DiTConfig, MLPConfig
from anystep.objectives import IMM, ImprovedConsistencyTraining, ImprovedShortcut, Reflow, Shortcut
from anystep.run.config import (
    CheckpointConfig,
    Config,
    EmaConfig,
    LogConfig,
    OptimizerConfig,
    PreviewConfig,
    TrainingConfig,
)

#: what its runs gave, the version of their random keys, their precision
RECORDED = {
    "1": (Path(__file__).with_name("recorded.json"), 1, "float32"),
    "2": (Path(__file__).with_name("recorded_2.json"), 2, "float32"),
    "bfloat16": (Path(__file__).with_name("recorded_bfloat16.json"), 2, "bfloat16"),
}
UPDATES, BATCH = 12, 64
STEPS = (1, 3, 8)
SHOWN = 6  # values of each set of samples that are recorded as numbers


def config(name: str, **sections: Any) -> Config:
    """Return a run of twelve updates."""
    usual = {
        "data": Digits(),
        "network": DiTConfig(hidden=32, depth=2, heads=2, patch=4),
        "optimizer": OptimizerConfig(lr=1e-3, warmup=4 * BATCH, decay=0.5, clip_norm=1.0),
        "ema": EmaConfig(target=0.9, evaluation=0.99),
        "training": TrainingConfig(images=UPDATES * BATCH, batch=BATCH, seed=3, device="cpu"),
        "checkpoint": CheckpointConfig(every=5 * BATCH),
        "preview": PreviewConfig(num=0),
        "log": LogConfig(every=BATCH),
    }
    return Config(recipe=name, **(usual | sections))


def configs() -> dict[str, Config]:
    """Return the runs by name."""
    return {
        "shortcut": config("golden-shortcut", objective=Shortcut(guidance=1.5, M=32)),
        "improved_shortcut": config(
            "golden-improved_shortcut",
            objective=ImprovedShortcut(M=32),
            network=DiTConfig(hidden=32, depth=2, heads=2, patch=4, guidance_input=True),
            penalty=Haar(),
            coupling=CouplingConfig(batches=4, per_class=True),
            ema=EmaConfig(target=0.9, evaluation=0.99, profiles=(0.05, 0.1)),
            training=TrainingConfig(images=UPDATES * BATCH, batch=BATCH, seed=3, device="cpu", accumulate=2),
        ),
        "ict": config(
            "golden-ict",
            objective=ImprovedConsistencyTraining(),
            network=DiTConfig(hidden=32, depth=2, heads=2, patch=4, step_encoding="none"),
        ),
        "reflow": config(
            "golden-reflow",
            data=TwoMoons(num=500, labels=True),
            objective=Reflow(pairs=150, pair_steps=8, guidance=1.5),
            network=MLPConfig(hidden=32, depth=2, step_encoding="none"),
        ),
        "imm": config(
            "golden-imm",
            objective=IMM(),
            network=DiTConfig(hidden=32, depth=2, heads=2, patch=4, step_encoding="continuous", time_scale=10.0),
        ),
    }


def measured(name: str, run: Path, version: str) -> dict[str, Any]:
    """Train one run as `RECORDED[version]` was; return its losses, a hash of its weights, and its samples as a hash and
    a few numbers.
    """
    _, keys, precision = RECORDED[version]
    trained = configs()[name]
    with patch.object(random, "KEY_VERSION", keys):
        train(replace(trained, training=replace(trained.training, precision=precision)), run)
    losses = [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]
    generator = load(run, device="cpu")
    result: dict[str, Any] = {"losses": losses, "weights": digest(*generator.network.state_dict().values())}
    for steps in STEPS:
        x = generator.generate(steps=steps, seed=1, index=range(5))
        result[f"samples_{steps}"] = {"hash": digest(x), "first": x.flatten()[:SHOWN].tolist()}
    return result


def digest(*tensors: torch.Tensor) -> str:
    """Return a hash of the bits of ``tensors``."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.detach().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def machine() -> str:
    """Return what decides how products are rounded here: processor, torch release, number of threads."""
    processor = platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        processor = " ".join(found.get(key, "") for key in ("model name", "cpu family", "model", "stepping"))
    how = f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, {torch.get_num_threads()} thread"
    return f"{processor}, {how}"


def main() -> int:
    """Record one version, or compare all and name every difference."""
    versions = sys.argv[2:3] if sys.argv[1:2] == ["--record"] else list(RECORDED)
    different = []
    for version in versions:
        with tempfile.TemporaryDirectory() as folder:
            now = {name: measured(name, Path(folder) / name, version) for name in configs()}
        if "--record" in sys.argv:
            RECORDED[version][0].write_text(json.dumps({"machine": machine(), "runs": now}, indent=1) + "\n")
            return 0
        recorded = json.loads(RECORDED[version][0].read_text())
        if recorded["machine"] != machine():
            print(f"recorded on {recorded['machine']}, this is {machine()}")
        runs = recorded["runs"]
        different += [
            f"{version} {name} {key}" for name, was in runs.items() for key in was if now[name][key] != was[key]
        ]
    print("\n".join(different) if different else f"{len(versions) * len(configs())} runs are equal, bit for bit")
    return 1 if different else 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
