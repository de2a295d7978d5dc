"""`anystep VERB ...`: reads the verb, runs its module, and turns errors into messages and exit codes.

Exit codes: 0 success, 2 bad usage, 1 a failed run, 128 + n stopped by signal n. Only a verb's module imports torch, so
that help and an unknown verb answer at once.
"""

import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import cast

#: verb -> what it does; each is a module of this package with `run(argv) -> int`
VERBS = {
    "train": "train a recipe, or resume a run",
    "sample": "draw from a run, in any number of steps",
    "evaluate": "score a run's samples against its data",
    "compare": "train and score every method on your data at equal compute",
    "report": "write pictures, tables and an HTML page of one or more runs",
    "recipes": "list what can be trained by name",
    "doctor": "print versions, devices, and what each extra would enable",
}

USAGE = """usage: anystep VERB ...

One network, any number of steps.

{verbs}

example:
  anystep train digits-shortcut --out runs/digits
  anystep sample runs/digits --steps 1 4 128

anystep VERB --help shows a verb's options; --debug shows the traceback of an error."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Errors are one or two lines on standard error."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        code = _run([word for word in words if word != "--debug"], debug)
        sys.stdout.flush()  # here, where a reader that has gone is no surprise
        return code
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  nothing is left to say at exit
        return 1
    except KeyboardInterrupt:
        return _fail("stopped", 130)


def _run(words: list[str], debug: bool) -> int:
    if not words or words[0] in ("-h", "--help"):
        width = max(map(len, VERBS))
        print(USAGE.format(verbs="\n".join(f"  {verb:<{width}}  {text}" for verb, text in VERBS.items())))
        return 0 if words else 2
    verb = words[0]
    if verb == "--version":
        from importlib.metadata import version

        print(f"anystep {version('anystep')}")
        return 0
    if verb not in VERBS:
        near = get_close_matches(verb, VERBS, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"verbs: {', '.join(VERBS)}"
        return _fail(f"unknown verb {verb!r}; {hint}", 2)
    try:
        run = cast(Callable[[list[str]], int], importlib.import_module(f"anystep.cli.{verb}").run)
        return run(words[1:])
    except SystemExit as end:
        return int(end.code or 0)
    except BrokenPipeError:
        raise
    except Exception as error:
        if debug:
            raise
        return _fail(*explain(error, verb))


#: verb -> what takes less memory
LESS_MEMORY = {
    "train": "compute the batch in parts (--training.accumulate 2), or take a smaller --batch or network",
    "sample": "draw fewer samples at a time (--num), or on another --device",
    "evaluate": "draw fewer samples at a time (--batch), or on another --device",
    "compare": "take a smaller --batch or network, fewer --jobs, or another --device",
    "report": "report one run at a time, or on another --device",
}


def explain(error: Exception, verb: str = "") -> tuple[str, int]:
    """Return an error of a verb in one or two lines, and the exit code.

    Only a `UsageError` is a mistake in the command. Any other ValueError comes from deep inside: the run has failed.
    """
    from anystep.core.errors import DataError, RunError, UsageError

    text = str(error) or type(error).__name__
    if isinstance(error, UsageError):
        return text, 2
    if isinstance(error, DataError | RunError):
        return text, 1
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror, 1
    if out_of_memory(error):
        hint = f"\n{LESS_MEMORY[verb]}" if verb in LESS_MEMORY else ""
        return f"out of memory ({text.splitlines()[0]}){hint}", 1
    if isinstance(error, ImportError):
        return text.splitlines()[0], 1
    return f"{type(error).__name__}: {text.splitlines()[0]}\nthis is a fault of the program; --debug shows where", 1


def out_of_memory(error: Exception) -> bool:
    """Tell whether memory ran out: Python's or NumPy's own error, torch's for a GPU, or its plain one for the CPU."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _fail(message: str, code: int) -> int:
    print(f"anystep: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
