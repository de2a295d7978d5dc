"""Command lines read by tyro, which prints help and errors itself: SystemExit(0) after help, SystemExit(2) on errors.

A verb that takes a config is read in two calls. Which fields a config has depends on some of the verb's own options
(the recipe, `--init-from`): `parse_known` reads those first and ignores the rest. `parse_with_sections` then reads the
whole command line against the config that they lead to.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import tyro

Args = TypeVar("Args")

#: a verb's `--import` option: the modules to import before a run or a config is opened
Imports = Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(
        name="import", metavar="MODULE", help="Import this module of yours first, so that a run can use its classes."
    ),
]


@dataclass(frozen=True)
class Command:
    """A verb's own options, --name, and the sections of a config, --section.field."""

    options: Annotated[object, tyro.conf.arg(name="")]
    config: Annotated[dict[str, Any], tyro.conf.arg(name="")]


def split(words: Sequence[str] | None) -> list[str] | None:
    """Return names that were given by spaces or commas; None where nothing was."""
    return None if words is None else [name for word in words for name in word.split(",") if name]


def parse(options: type[Args], argv: Sequence[str], verb: str, description: str) -> Args:
    """Return the command line of a verb without a config as an instance of the dataclass ``options``."""
    return tyro.cli(options, args=list(argv), prog=f"anystep {verb}", description=description)


def parse_known(options: type[Args], argv: Sequence[str], verb: str) -> Args:
    """Return a verb's own options; words that are none of them, `--help` included, are ignored."""
    args, _ = tyro.cli(options, args=list(argv), prog=f"anystep {verb}", return_unknown_args=True, add_help=False)
    return args


def parse_with_sections(
    options: Callable[[], object], sections: Mapping[str, Any], argv: Sequence[str], verb: str, description: str
) -> dict[str, Any]:
    """Return the sections of a config with the fields that the command line sets.

    ``sections`` holds the sections without the command line, by name; ``options`` is the class of the verb's own
    options, all with defaults, which help shows.
    """
    command = tyro.cli(
        Command,
        args=list(argv),
        default=Command(options(), dict(sections)),
        prog=f"anystep {verb}",
        description=description,
    )
    return command.config
