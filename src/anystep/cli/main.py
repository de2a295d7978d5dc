"""`anystep SUBCOMMAND ...`: runs the subcommand's module, and turns errors into messages and exit codes.

Exit codes: 0 success, 2 bad usage, 1 a failed run, 128 + n stopped by signal n. Only a subcommand's module imports
torch, so that help and an unknown subcommand answer at once.
"""

import codecs
import importlib
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import cast
from unicodedata import normalize

from anystep.core.errors import DataError, RunError, UsageError, did_you_mean

#: subcommand -> what it does, and an example; each is a module of this package with `run(argv) -> int`
SUBCOMMANDS = {
    "train": ("train a recipe, or resume a run", "train digits-shortcut --out runs/digits"),
    "sample": ("generate samples of a run, in any number of steps", "sample runs/digits --steps 1 4 128"),
    "evaluate": ("score a run's samples against its data", "evaluate runs/digits --steps 1 4 128"),
    "compare": ("train and score several methods on your data", "compare digits --methods shortcut,flow_matching"),
    "report": ("write figures, tables and an HTML page of runs", "report runs/digits"),
    "data": ("show what a run would see of a folder or file", "data inspect pictures"),
    "recipes": ("list what can be trained by name", "recipes digits-shortcut"),
    "doctor": ("print versions, devices and extras", "doctor"),
}

USAGE = """usage: anystep SUBCOMMAND ...

One network, any number of steps.

{subcommands}

anystep SUBCOMMAND --help shows its options. --debug: the traceback of an error."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Errors are one or two lines on standard error."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    print_anywhere(sys.stdout, sys.stderr)
    try:
        code = run_subcommand([word for word in words if word != "--debug"])
        sys.stdout.flush()  # here, where a broken pipe is expected
        return code
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  Python flushes it at exit
        return 1
    except KeyboardInterrupt:
        message, code = "stopped", 130
    except Exception as error:
        if debug:
            raise
        message, code = explain(error)
    print(f"anystep: {message}", file=sys.stderr)
    return code


def print_anywhere(*streams: object) -> None:
    """Let streams that are not UTF-8 print every text: accents are dropped, file names keep their bytes."""
    codecs.register_error("plain", plain)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
            stream.reconfigure(errors="plain")


def plain(error: UnicodeError) -> tuple[bytes, int]:
    """Return what to print for the first character that an encoding lacks: an error handler of `codecs`."""
    assert isinstance(error, UnicodeEncodeError)
    char = error.object[error.start]
    if "\udc80" <= char <= "\udcff":  # a byte of a file name, as Python reads it
        printed = char.encode("ascii", "surrogateescape")
    else:
        printed = {"–": b"-", "×": b"x"}.get(char) or normalize("NFKD", char).encode("ascii", "ignore") or b"?"
    return printed, error.start + 1


def run_subcommand(words: Sequence[str]) -> int:
    """Run the subcommand that is the first word, or print the usage; returns the exit code."""
    if not words or words[0] in ("-h", "--help"):
        lines = (f"  {name:<8}  {what}\n            anystep {example}" for name, (what, example) in SUBCOMMANDS.items())
        print(USAGE.format(subcommands="\n".join(lines)))
        return 0 if words else 2
    name = words[0]
    if name == "--version":
        from importlib.metadata import version

        print(f"anystep {version('anystep')}")
        return 0
    if name not in SUBCOMMANDS:
        hint = did_you_mean(name, SUBCOMMANDS) or f"; subcommands: {', '.join(SUBCOMMANDS)}"
        raise UsageError(f"unknown subcommand {name!r}{hint}")
    run = cast(Callable[[Sequence[str]], int], importlib.import_module(f"anystep.cli.{name}").run)
    try:
        return run(words[1:])
    except SystemExit as end:  # of tyro, after help or a mistake
        return int(end.code or 0)


def explain(error: Exception) -> tuple[str, int]:
    """Return an error in one or two lines, and the exit code.

    Only a `UsageError` is a mistake in the command. Any other ValueError comes from deep inside: the run has failed.
    """
    text = str(error) or type(error).__name__
    if isinstance(error, UsageError | DataError | RunError):
        return text, 2 if isinstance(error, UsageError) else 1
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror, 1
    first_line = text.splitlines()[0]
    if isinstance(error, ImportError):
        return first_line, 1
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in text:
        hint = "generate fewer samples at a time, use a smaller batch (train: --training.accumulate 2) or network"
        return f"out of memory ({first_line})\n{hint}, or another --device", 1
    return f"{type(error).__name__}: {first_line}\nthis is a fault of the program; --debug shows where", 1
