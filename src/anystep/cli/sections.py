"""Command lines of the subcommands that take a config: its fields are options, --section.field VALUE.

They are read in two calls of tyro. Which fields a config has depends on some of the subcommand's own options (the
recipe, `--init-from`, `--penalty`): the first call reads those and ignores the rest. The second reads the whole command
line against the config that they select. `--help` is the help of the first, `--help-all` that of the second.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, TypeVar

import tyro

from anystep.cli.parse import ConfigOptions, wrapped
from anystep.core.errors import UsageError
from anystep.core.registry import import_modules
from anystep.recipes import missing_data
from anystep.run.config import Config, from_json, to_json

Options = TypeVar("Options", bound=ConfigOptions)


@dataclass(frozen=True)
class Command:
    """The options of a subcommand, --name, and the sections of a config, --section.field."""

    options: Annotated[object, tyro.conf.arg(name="")]
    config: Annotated[dict[str, Any], tyro.conf.arg(name="")]


def parse_with_sections(
    options: type[Options],
    argv: Sequence[str],
    subcommand: str,
    description: str,
    example: str,
    find_config: Callable[[Options], Config],
    without: Sequence[str] = (),
) -> tuple[Options, Config, dict[str, Any]]:
    """Return the options, the config that they select, and its sections with the fields that are set.

    ``find_config`` returns the config before its sections are read; those in ``without`` are no options. The recipe is
    the first word; without one, help shows the fields of the recipe ``example``, and anything else raises UsageError.
    `--import`ed modules are imported.
    """
    prog, description = f"anystep {subcommand}", wrapped(description)
    try:
        args, _ = tyro.cli(options, args=list(argv), prog=prog, description=description, return_unknown_args=True)
    except SystemExit as end:
        if not end.code:
            print(f"More options, --section.field of the config: {prog} RECIPE --help-all")
        raise
    import_modules(args.imports)
    recipe_first = list(argv[:1]) == [args.recipe]
    config = with_classes(find_config(args if recipe_first else options(recipe=example)), args)
    names = [f.name for f in fields(Config) if f.name not in ("recipe", *without)]
    default = Command(options(), {name: getattr(config, name) for name in names})
    words = ["--help"] if args.help_all else list(argv)
    command = tyro.cli(Command, args=words, default=default, prog=prog, description=description)
    if not recipe_first:
        raise UsageError(
            f"{subcommand} starts with a recipe, e.g. anystep {subcommand} {example}; anystep recipes lists them"
        )
    return args, config, command.config


def with_classes(config: Config, options: ConfigOptions) -> Config:
    """Return the config with the classes that `--codec`, `--penalty` and `--weight` name, and their default fields.

    A section that already has that class is unchanged. Raises UsageError for an unknown name.
    """
    values = to_json(config)
    for section in ("codec", "penalty", "weight"):
        name = getattr(options, section)
        if name not in (None, values[section]["name"]):
            values[section] = {"name": name}
    return from_json(values)


def configured(base: Config, sections: Mapping[str, Any], options: ConfigOptions) -> Config:
    """Return ``base`` with these sections, the options that are short for a field of `training`, and absolute paths.

    The config is built once with all of them, as its checks compare fields of several sections. Raises UsageError, also
    for a recipe whose data is not here.
    """
    short = {name: getattr(options, name, None) for name in ("images", "batch", "seed", "device")}
    training = replace(sections["training"], **{name: value for name, value in short.items() if value is not None})
    config = replace(base, **{**sections, "training": training})
    if path := missing_data(config):
        raise UsageError(f"{config.recipe} needs data: set its place with --data.path ({path} does not exist)")
    return config.located()
