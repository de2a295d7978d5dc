"""`anystep VERB ...`: verbs as a person says them.

Exit codes: 0 success, 2 bad usage, 1 a failed run, 128 + n stopped by signal n.
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
    "train": "train a recipe, or go on with a run",
    "sample": "draw from a run, in any number of steps",
    "evaluate": "score a run's samples against its data",
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
    words = [word for word in words if word != "--debug"]
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
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
    return _run(verb, words[1:], debug)


def _run(verb: str, argv: list[str], debug: bool) -> int:
    from anystep.data import DataError
    from anystep.training.errors import RunError

    run = cast(Callable[[list[str]], int], importlib.import_module(f"anystep.cli.{verb}").run)
    try:
        return run(argv)
    except SystemExit as end:
        return int(end.code or 0)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return _fail("stopped", 130)
    except (DataError, RunError, OSError, MemoryError) as error:
        if debug:
            raise
        return _fail(str(error) or type(error).__name__, 1)
    except ValueError as error:
        if debug:
            raise
        return _fail(str(error), 2)


def _fail(message: str, code: int) -> int:
    print(f"anystep: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
