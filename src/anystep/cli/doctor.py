"""`anystep doctor`: versions, devices, and what each extra would enable."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from anystep.cli.files import write_json
from anystep.cli.parse import parse

DESCRIPTION = """Print versions, devices, and what each optional extra would enable.

example: anystep doctor --json doctor.json"""

#: extra -> (package that it installs, what it is for)
EXTRAS = {
    "data": ("datasets", "Hugging Face and parquet data sets (recipes hub-*)"),
    "ot": ("lapx", "a quicker assignment than SciPy's (--coupling.batches)"),
    "report": ("matplotlib", "curves and scatter plots in reports"),
    "tensorboard": ("tensorboard", "TensorBoard events (--log.tensorboard)"),
}
CORE = ("torch", "numpy", "safetensors", "scikit-learn", "pillow", "tyro", "rich")


@dataclass(frozen=True)
class Args:
    """Options of `anystep doctor`."""

    json: Path | None = None
    """Write the findings to this file."""


def run(argv: Sequence[str]) -> int:
    """Print the findings; returns 0."""
    args = parse(Args, argv, "doctor", DESCRIPTION)
    found = findings()
    console = Console()
    table = Table("what", "found", show_header=False, box=None)
    for name, value in {**found["versions"], **found["devices"]}.items():
        table.add_row(name, str(value))
    console.print(table)
    extras = Table("extra", "installed", "enables", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, extra in found["extras"].items():
        extras.add_row(name, extra["installed"] or f"no: pip install -e '.\\[{name}]'", extra["enables"])
    console.print(extras)
    if args.json is not None:
        write_json(args.json, found)
    return 0


def findings() -> dict[str, Any]:
    """Return versions, devices and extras as plain values."""
    versions = {"anystep": version("anystep"), "python": platform.python_version(), "system": platform.platform()}
    versions |= {name: installed(name) or "missing" for name in CORE}
    devices: dict[str, Any] = {
        "cpu": f"{os.cpu_count()} cores",
        "threads": f"torch uses {torch.get_num_threads()}, "
        + ", ".join(f"{name} {os.environ.get(name, 'unset')}" for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")),
        "cuda": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] or "none",
        "mps": "available" if torch.backends.mps.is_available() else "none",
    }
    extras = {name: {"installed": installed(package), "enables": what} for name, (package, what) in EXTRAS.items()}
    return {"versions": versions, "devices": devices, "extras": extras}


def installed(package: str) -> str | None:
    """Return a package's version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
