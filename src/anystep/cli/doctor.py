"""`anystep doctor`: versions, devices, and what each extra would enable."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import torch

from anystep.cli.files import check_writable, write_json
from anystep.cli.parse import parse, unset
from anystep.cli.tables import print_table

DESCRIPTION = """Print versions, devices, and what each optional extra would enable.

example: anystep doctor --json doctor.json"""

#: extra -> (package that it installs, what it is for)
EXTRAS = {
    "data": ("datasets", "Hugging Face and parquet data sets (recipes hub-*)"),
    "report": ("matplotlib", "curves and scatter plots in reports"),
    "tensorboard": ("tensorboard", "TensorBoard events (--log.tensorboard)"),
}
CORE = ("torch", "numpy", "safetensors", "scipy", "scikit-learn", "pillow", "tyro", "rich")


@dataclass(frozen=True)
class DoctorOptions:
    """Options of `anystep doctor`."""

    json: Annotated[Path | None, unset("FILE")] = None
    """Write the same to this file."""


def run(argv: Sequence[str]) -> int:
    """Print versions, devices and extras; returns 0."""
    args = parse(DoctorOptions, argv, "doctor", DESCRIPTION)
    check_writable(args.json)
    versions = {"anystep": version("anystep"), "python": platform.python_version(), "system": platform.platform()}
    versions |= {name: installed(name) or "missing" for name in CORE}
    variables = (f"{name} {os.environ.get(name, 'unset')}" for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"))
    devices = {
        "cpu": f"{os.cpu_count()} cores",
        "threads": f"torch uses {torch.get_num_threads()}, {', '.join(variables)}",
        "cuda": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] or "none",
        "mps": "available" if torch.backends.mps.is_available() else "none",
    }
    extras = {name: {"installed": installed(package), "enables": what} for name, (package, what) in EXTRAS.items()}
    for name, value in (versions | devices).items():
        print(f"{name:<12}  {value}")
    columns = {
        "extra": list(extras),
        "installed": [extra["installed"] or f"no: pip install -e '.[{name}]'" for name, extra in extras.items()],
        "enables": [enables for _, enables in EXTRAS.values()],
    }
    print_table(columns)
    if args.json is not None:
        write_json(args.json, {"versions": versions, "devices": devices, "extras": extras})
    return 0


def installed(package: str) -> str | None:
    """Return a package's version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
