"""`anystep data VERB ...`: runs the verb's module."""

import importlib
from collections.abc import Callable, Sequence
from typing import cast

from anystep.core.errors import UsageError, did_you_mean

#: verb -> what it does, and an example; each is a module of this package, data_VERB, with `run(argv) -> int`
VERBS = {
    "inspect": ("print what a run would see of a folder or file of data", "pictures --sheet sheet.png"),
    "classifier": ("train a classifier of the data, for scores in its features", "emoji --out emoji.safetensors"),
    "inception": ("put the weights of the FID network into the cache, for fid and kid", ""),
}


def run(argv: Sequence[str]) -> int:
    """Run the verb that is the first word, or print what there is; returns the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        verbs = "\n".join(f"  {verb:<10}  {what}" for verb, (what, _) in VERBS.items())
        examples = "\n".join(f"example: anystep data {verb} {words}".rstrip() for verb, (_, words) in VERBS.items())
        print(f"usage: anystep data VERB ...\n\n{verbs}\n\n{examples}")
        return 0 if argv else 2
    verb, *words = argv
    if verb not in VERBS:
        hint = did_you_mean(verb, VERBS) or f"; verbs: {', '.join(VERBS)}"
        raise UsageError(f"unknown verb {verb!r} of anystep data{hint}")
    module = importlib.import_module(f"anystep.cli.data_{verb}")
    return cast(Callable[[Sequence[str]], int], module.run)(words)
