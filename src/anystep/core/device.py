"""The device that a run is computed on."""

import torch

from anystep.core.errors import UsageError


def pick_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is a GPU if there is one. Raises UsageError if it is not available."""
    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r} is not available here: use auto or cpu") from error
    return torch.device(name)
