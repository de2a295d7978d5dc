"""Checks of hyper-parameters: each error names the field, the value got and what would be right."""

import math
from typing import get_args


def in_range(field: str, value: float, low: float, high: float, *, open_end: bool = False) -> None:
    """Raise ValueError unless ``low <= value <= high`` (``value < high`` with ``open_end``)."""
    if not low <= value <= high or (open_end and value == high):
        raise ValueError(f"{field} must be in [{low:g}, {high:g}{')' if open_end else ']'}, got {value}")


def power_of_two(field: str, value: int) -> None:
    """Raise ValueError unless ``value`` is 2, 4, 8, ..."""
    if value < 2 or value & (value - 1):
        raise ValueError(f"{field} must be a power of two of at least 2, got {value}")


def one_of(field: str, value: str, choices: object) -> None:
    """Raise ValueError unless ``value`` is a member of the Literal type ``choices``."""
    if value not in get_args(choices):
        raise ValueError(f"{field} must be one of {', '.join(get_args(choices))}, got {value!r}")


def positive(field: str, value: float) -> None:
    """Raise ValueError unless ``value > 0`` and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"{field} must be greater than 0 and finite, got {value}")
