"""The sections of a config as options of a verb, --section.field VALUE."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from anystep.core.errors import UsageError
from anystep.recipes import missing_data
from anystep.run.config import Config, from_json, to_json

#: sections whose class an option chooses, --section NAME, before its fields are read
CHOSEN = ("codec", "penalty", "weight")
#: options that are short for a field of the section `training`
ALIASES = ("images", "batch", "seed", "device")


def sections_of(config: Config, names: Iterable[str]) -> dict[str, Any]:
    """Return these sections of a config by name."""
    return {name: getattr(config, name) for name in names}


def with_classes(config: Config, options: Any) -> Config:
    """Return the config with the classes that `--codec`, `--penalty` and `--weight` name, their fields by default.

    Raises ValueError for an unknown name.
    """
    names = {section: getattr(options, section) for section in CHOSEN}
    return with_named(config, {section: name for section, name in names.items() if name is not None})


def with_named(config: Config, names: Mapping[str, str]) -> Config:
    """Return the config with these sections of the classes named; one of its class already keeps its fields."""
    values = to_json(config)
    changed = {
        section: {"name": name} for section, name in names.items() if values.get(section, {}).get("name") != name
    }
    return from_json(values | changed) if changed else config


def configured(base: Config, sections: Mapping[str, Any], options: object) -> Config:
    """Return ``base`` with these sections, and the short options of `training` applied to them.

    The config is made once, with all of them, as its checks are of several sections together. Raises UsageError.
    """
    given = {name: getattr(options, name, None) for name in ALIASES}
    short = {name: value for name, value in given.items() if value is not None}
    return replace(base, **{**sections, "training": replace(sections["training"], **short)})


def find_data(config: Config) -> Config:
    """Return the run with its data found from any folder. Raises UsageError for a recipe whose data is not here."""
    if path := missing_data(config):
        raise UsageError(f"{config.recipe} needs data: say where it is with --data.path ({path} is not here)")
    return config.located()
