"""Which of the library's files does one training step pass through?

    python examples/files_of_a_step.py [RECIPE]

Trains a few updates and lists the files whose functions the last one calls. Those of `core/`, `flow/` and `networks/`
(what everything uses, and the mathematics) are listed apart: the others are what a reader must know to follow a step.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import anystep

ROOT = Path(anystep.__file__).parent
APART = ("core", "flow", "networks")


@contextmanager
def traced(files: set[str]) -> Iterator[None]:
    """Collect the library's files whose functions are called in the block."""

    def note(frame: FrameType, event: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ROOT):
            files.add(str(path.relative_to(ROOT)))

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)


def files_of_a_step(recipe: str, updates: int = 3) -> set[str]:
    """Return the files that the last but one update of a short run passes through, from one update to the next."""
    config = anystep.find_recipe(recipe)
    batch = 64
    training = replace(config.training, images=updates * batch, batch=batch, device="cpu")
    config = replace(config, training=training)
    found: set[str] = set()
    tracer = traced(found)

    def between(step: int, record: Any) -> None:
        if step == updates - 2:
            tracer.__enter__()
        elif step == updates - 1:
            tracer.__exit__(None, None, None)

    with tempfile.TemporaryDirectory() as folder:
        anystep.train(config, Path(folder) / "run", watch=between)
    return found


if __name__ == "__main__":
    files = files_of_a_step(*sys.argv[1:] or ["digits-shortcut_paper"])
    own = sorted(name for name in files if name.split("/")[0] not in APART)
    print(f"{len(own)} files:", *own, sep="\n  ")
    print(f"and {len(files) - len(own)} of {', '.join(APART)}:", *sorted(files - set(own)), sep="\n  ")
