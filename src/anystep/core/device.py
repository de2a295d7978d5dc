"""The device that a run is computed on, and whether it computes in bfloat16."""

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


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 matrices in hardware. Without it they are several times slower."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0) or torch.version.hip is not None
    flags = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(flags.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
