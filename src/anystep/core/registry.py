"""Classes by name, the library's and your own."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from anystep.core.errors import UsageError


def import_modules(names: Sequence[str]) -> None:
    """Import these modules, so that runs and configs may use their classes. The working folder is searched first.

    Raises UsageError, in one line, for a module that cannot be imported.
    """
    folder = str(Path.cwd())
    if names and folder not in sys.path:
        sys.path.insert(0, folder)
    for name in names:
        try:
            import_module(name)
        except Exception as error:  # a module may raise anything when it is imported
            why = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise UsageError(f"cannot import {name}, looked for in {folder} too: {why}") from error
