"""Errors that a user can act on, and their causes in few words."""

from collections.abc import Iterable
from difflib import get_close_matches


class RunError(RuntimeError):
    """A run cannot start or continue. The message has one or two lines: what, where, and what to do."""


class UsageError(ValueError):
    """The request itself is wrong: a name, a field or a value."""


class DataError(ValueError):
    """Bad data. The message has one or two lines: which file or field, what was expected, what to do."""


def reason(error: BaseException) -> str:
    """Return an error's cause in few words: the message of the operating system where there is one."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def misfit(error: BaseException) -> str:
    """Return why parameters do not fit a network, in one line: torch's first complaint, below its headline."""
    lines = [line.strip() for line in reason(error).splitlines()]
    return lines[min(1, len(lines) - 1)]


def counted(number: int, noun: str) -> str:
    """Return "1 example", "1,024 examples"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest names or those that contain it, or nothing."""
    names = list(names)
    near = get_close_matches(name, names, n=2) or [each for each in names if len(name) > 2 and name in each][:2]
    return f"; did you mean {' or '.join(near)}?" if near else ""
