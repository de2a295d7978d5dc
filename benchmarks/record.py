"""How a benchmark's result is kept: one JSON file with the command, the commit, the machine and the protocol."""

import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from anystep.evaluation.protocol import code_version

RESULTS = Path(__file__).parent / "results"
#: the code that runs, whatever is edited meanwhile
CODE = code_version()


def processor() -> str:
    """Return the processor's model name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """Return what the numbers depend on and the code does not say."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def write(name: str, protocol: dict[str, Any], results: Any) -> Path:
    """Write ``results/NAME.json`` and return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    record = {
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "code": CODE,
        "machine": machine(),
        "protocol": protocol,
        "results": results,
    }
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(path)
    return path
