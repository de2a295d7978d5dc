"""Arguments by tyro, with errors in one or two lines."""

import io
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from itertools import groupby
from typing import TypeVar

import tyro

from anystep.core.errors import UsageError

Args = TypeVar("Args")

#: what tyro draws around an error: a frame where the terminal has the characters, else rules
_FRAME = re.compile(r"[│╭╮╰╯─]|-{4,}")
_METAVAR = {"INT": ("an integer", "integers"), "FLOAT": ("a number", "numbers")}


def split(words: Sequence[str] | None) -> list[str] | None:
    """Return names that were given by spaces or commas; None where nothing was."""
    return None if words is None else [name for word in words for name in word.split(",") if name]


def parse(kind: type[Args], argv: Sequence[str], verb: str, description: str) -> Args:
    """Return ``argv`` as an instance of the dataclass ``kind``.

    Raises UsageError with one or two lines for a person, and SystemExit(0) after ``--help``.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(kind, args=list(argv), prog=f"anystep {verb}", description=description)
    except SystemExit as end:
        if end.code in (0, None):
            raise
    raise UsageError(f"{condense(said.getvalue())}\nsee: anystep {verb} --help")


def condense(box: str) -> str:
    """Return the message of tyro's framed error in one line, in the words of the rest of the program."""
    lines = [_FRAME.sub("", line).strip() for line in box.splitlines()][1:]  # the first is the title
    paragraphs = [list(group) for full, group in groupby(lines, bool) if full]
    if not paragraphs:
        return "cannot read these options"
    first, rest = paragraphs[0], [line for paragraph in paragraphs[1:] for line in paragraph]
    message = " ".join(first)
    wordings: dict[str, Callable[[re.Match[str]], str]] = {
        r"Unrecognized options: (.*)": lambda m: _unknown(m[1].split(", "), rest),
        r"Error parsing (\S+): (.*)": lambda m: _wrong_value(m[1], m[2], rest),
        r"Missing value for argument '(\S+)'. Expected (\d+)": lambda m: (
            f"{m[1]} needs {'a value' if m[2] == '1' else f'{m[2]} values'}"
        ),
        r"invalid choice (.*) for argument '(\S+)'. Expected one of \((.*)\)": lambda m: (
            f"{m[2]}: expected one of {_choices(m[3])}, got {m[1]}"
        ),
        r"Missing from": lambda m: f"missing {_names(first[1:])}",
    }
    for pattern, words in wordings.items():
        if found := re.match(pattern, message):
            return words(found)
    return message


def _choices(listed: str) -> str:
    """Return what may be chosen, in a fixed order; None is the absence of a choice."""
    return ", ".join(sorted({choice.strip("', ") for choice in listed.split(", ")} - {"None", ""}))


def _names(lines: Sequence[str]) -> str:
    """Return the arguments that these lines of help begin with."""
    return " and ".join(match[0] for line in lines if (match := re.match(r"--[\w.-]+|[A-Z]+(?!\S)", line)))


def _unknown(words: Sequence[str], rest: Sequence[str]) -> str:
    """Name the first word that is no option, with the nearest options that tyro offers."""
    options = [word for word in words if word.startswith("-")]
    offered = [line.split()[0] for line in rest if line.startswith("--")]
    near = f"; did you mean {' or '.join(dict.fromkeys(offered[:3]))}?" if options and offered else ""
    return (f"unknown option {options[0]}" if options else f"unexpected argument {words[0]!r}") + near


def _wrong_value(name: str, reason: str, rest: Sequence[str]) -> str:
    """Say what an option expects, or, for a section of options, which field of it is at fault."""
    if not name.startswith("-"):
        return reason if reason.startswith(f"{name}.") else f"{name}.{reason}"
    metavar = next((line.removeprefix(name) for line in rest if line.startswith(f"{name} ")), "")
    kind = next((names for word, names in _METAVAR.items() if word in metavar), None)
    if kind is None:
        return f"{name}: {reason}"
    several = any(metavar.count(word) > 1 for word in _METAVAR)
    got = " ".join(re.findall("'[^']*'", reason))
    return f"{name}: expected {kind[several]}, got {got}"
