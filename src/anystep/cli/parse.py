"""Arguments by tyro, with errors in one or two lines."""

import io
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import TypeVar

import tyro

from anystep.training.errors import UsageError

Args = TypeVar("Args")

_FRAME = "│╭╮╰╯─ "


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
    """Return the message of tyro's framed error in one line, with the nearest options that it offers."""
    lines = [line.strip(_FRAME) for line in box.splitlines()]
    body = lines[1:]
    message = " ".join(body[: body.index("")] if "" in body else body)
    message = re.sub(r"^Error parsing [\w.\[\]-]+: (?!Could)", "", message)
    message = re.sub(r", [^-][^,]*$", "", message) if message.startswith("Unrecognized") else message
    offered = [line.split()[0] for line in body if line.startswith("--")] if "Perhaps you meant:" in body else []
    return message + (f"; did you mean {' or '.join(dict.fromkeys(offered[:3]))}?" if offered else "")


def interactive() -> bool:
    """Whether a person watches standard error."""
    return sys.stderr.isatty()
