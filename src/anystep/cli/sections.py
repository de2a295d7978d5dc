"""The sections of a config as options of a verb, --section.field VALUE."""

from collections.abc import Sequence
from dataclasses import field, make_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from anystep.core.errors import UsageError
from anystep.recipes.images import PATHS
from anystep.recipes.vectors import PATH as VECTORS_PATH
from anystep.run.config import REGISTRIES, Config

Head = TypeVar("Head")

#: options that are short for a field of the section `training`
SHORT = ("images", "batch", "seed", "device")


def with_sections(head: type[Head], base: Config, names: Sequence[str]) -> type[Head]:
    """Return the options of ``head`` with those of the sections; what is not given is as in ``base``."""
    sections = [(name, type(getattr(base, name)), field(default=getattr(base, name))) for name in names]
    return make_dataclass("Options", sections, bases=(head,), frozen=True, kw_only=True)


def choose(config: Config, argv: Sequence[str]) -> tuple[Config, list[str]]:
    """Return the config with the classes that --penalty NAME and --weight NAME choose, and the other words."""
    words = list(argv)
    for section in ("penalty", "weight"):
        while (option := f"--{section}") in words:
            at = words.index(option)
            name, registry = "".join(words[at + 1 : at + 2]), REGISTRIES[section]
            if name not in registry:
                raise UsageError(f"{option}: expected one of {', '.join(registry)}, got {name!r}")
            if type(getattr(config, section)) is not registry[name]:
                config = replace(config, **{section: registry[name]()})
            del words[at : at + 2]
    return config, words


def configured(base: Config, args: object, names: Sequence[str]) -> Config:
    """Return ``base`` with the sections as given; made once, with all of them. Raises ValueError."""
    short = {name: getattr(args, name, None) for name in SHORT}
    given: dict[str, Any] = {name: value for name, value in short.items() if value is not None}
    made = {name: getattr(args, name) for name in names}
    made["training"] = replace(made["training"], **given)
    return replace(base, **made)


def find_data(config: Config) -> Config:
    """Return the run with its data found from any folder. Raises UsageError for a recipe whose data is not here."""
    path = getattr(config.data, "path", None)
    if path in {*PATHS.values(), VECTORS_PATH} and not Path(path).exists():
        raise UsageError(f"{config.recipe} needs data: say where it is with --data.path ({path} is not here)")
    return config.located()
