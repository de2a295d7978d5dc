"""Checks of numbers and choices: each error names the field, the value got and what would be right."""

import math
from typing import get_args


def require(holds: bool, field: str, value: object, rule: str) -> None:
    """Raise ``ValueError("<field> must be <rule>, got <value>")`` unless ``holds``."""
    if not holds:
        raise ValueError(f"{field} must be {rule}, got {value!r}")


def at_least(field: str, value: int, low: int) -> None:
    """Raise ValueError unless ``value >= low``."""
    require(value >= low, field, value, f"at least {low}")


def in_range(field: str, value: float, low: float, high: float, *, open_end: bool = False) -> None:
    """Raise ValueError unless ``low <= value <= high`` (``value < high`` with ``open_end``)."""
    inside = low <= value <= high and not (open_end and value == high)
    require(inside, field, value, f"in [{low:g}, {high:g}{')' if open_end else ']'}")


def positive(field: str, value: float) -> None:
    """Raise ValueError unless ``value > 0`` and finite."""
    require(0 < value < math.inf, field, value, "greater than 0 and finite")


def finite(field: str, value: float) -> None:
    """Raise ValueError for an infinity or no number."""
    require(math.isfinite(value), field, value, "finite")


def power_of_two(field: str, value: int) -> None:
    """Raise ValueError unless ``value`` is 2, 4, 8, ..."""
    require(value >= 2 and not value & (value - 1), field, value, "a power of two of at least 2")


def one_of(field: str, value: str, choices: object) -> None:
    """Raise ValueError unless ``value`` is a member of the Literal type ``choices``."""
    require(value in get_args(choices), field, value, f"one of {', '.join(get_args(choices))}")
