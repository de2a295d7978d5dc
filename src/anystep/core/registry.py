"""Names for things that a config or a command line chooses, and classes in the user's own files.

A config names a class of the library by its key in a registry, and any other class by "module:Class". Reading a config
imports no module: that class must be imported already, or its module be given to `import_modules`.
"""

import dataclasses
import importlib
import inspect
import sys
from collections import UserDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, TypeVar

from anystep.core.errors import UsageError, did_you_mean
from anystep.core.fields import Checked, check_fields

T = TypeVar("T")


class Registry(UserDict[str, T]):
    """Things by name. One that is given as "module:name" is imported when it is first used."""

    def __init__(self, things: Mapping[str, str | T]) -> None:
        self.data: dict[str, Any] = dict(things)

    def __getitem__(self, name: str) -> T:
        thing = self.data[name]
        if isinstance(thing, str):
            module, _, attribute = thing.partition(":")
            thing = self.data[name] = getattr(importlib.import_module(module), attribute)
        found: T = thing
        return found

    def find(self, name: str, base: type[Any], field: str) -> Any:
        """Return the thing of a name, or the subclass of ``base`` that "module:Class" names. Raises UsageError."""
        if name not in self and ":" not in name:
            raise UsageError(f"{field} must be one of {', '.join(self)}, got {name!r}{did_you_mean(name, self)}")
        return self[name] if name in self else find_class(name, base)

    def attribute(self, module: str, name: str) -> T:
        """Return the thing that ``module`` exports as ``name``: for a package's ``__getattr__``."""
        for key, thing in self.data.items():
            if name == (thing.partition(":")[2] if isinstance(thing, str) else getattr(thing, "__name__", None)):
                return self[key]
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    def written(self, cls: type) -> str:
        """Return the name of a class for a config: a key if the registry holds this very class, else its path."""
        for key, thing in self.data.items():
            if (thing == f"{cls.__module__}:{cls.__qualname__}" or thing is cls) and self[key] is cls:
                return key
        return import_path(cls)


class Option(Checked):
    """Base of the classes that a section of a config chooses between. ``name`` is by default that of the class."""

    name: ClassVar[str]

    def __init_subclass__(cls, section: str | None = None, **options: Any) -> None:
        super().__init_subclass__(section, **options)
        if "name" not in vars(cls):
            cls.name = cls.__name__


def import_path(cls: type) -> str:
    """Return "module:Class", where another process finds a class. Raises UsageError for a class in a function."""
    if "<locals>" in cls.__qualname__:
        raise UsageError(
            f"{cls.__qualname__} is defined inside a function, where no other process finds it: move it to the top "
            "level of its file"
        )
    module = main_name() if cls.__module__ in {"__main__", "__mp_main__"} else cls.__module__
    return f"{module}:{cls.__qualname__}"


def main_name() -> str:
    """Return the module name of the running program; "__main__" in a notebook or a console."""
    main = sys.modules["__main__"]
    if spec := getattr(main, "__spec__", None):
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else "__main__"


def find_class(path: str, base: type[T]) -> type[T]:
    """Return the subclass of ``base`` that "module:Class" names. Imports and calls nothing.

    Raises UsageError when the module is not imported or has no such class, or the class is no frozen dataclass of type
    ``base``.
    """
    name, _, attributes = path.partition(":")
    if name not in sys.modules and name != main_name():
        raise UsageError(f"{path} is in a module that is not imported: --import {name}, in Python imports=[{name!r}]")
    module: Any = sys.modules.get(name) or sys.modules["__main__"]
    found = module
    for part in attributes.split("."):
        found = vars(found).get(part) if isinstance(found, ModuleType | type) else None
    if found is None:
        near = did_you_mean(attributes, (key for key, thing in vars(module).items() if isinstance(thing, type)))
        hint = near or ": renamed or removed, or another module of this name"
        raise UsageError(f"{name} has no class {attributes}{hint}")
    if not (isinstance(found, type) and issubclass(found, base) and not inspect.isabstract(found)):
        raise UsageError(f"{path} is not a subclass of {base.__name__} that can be used here")
    check_decorated(found)
    return found


def check_decorated(cls: type) -> None:
    """Raise UsageError unless a class is itself a frozen dataclass: fields of an undecorated one would be lost."""
    parameters = vars(cls).get("__dataclass_params__")
    if parameters is None or not parameters.frozen:
        raise UsageError(f"{cls.__name__} must be a frozen dataclass: write @dataclass(frozen=True) above the class")


def check_option(section: str, option: object, base: type, got: str | None = None) -> None:
    """Raise UsageError unless a config can hold this object: an instance of a frozen dataclass with checked fields.

    ``got`` replaces the repr of an object that is no ``base`` in the message.
    """
    if not isinstance(option, base):
        shown = f"the class {option.__name__}, not an object of it" if isinstance(option, type) else f"{option!r:.60}"
        article = "an" if base.__name__[0] in "AEIOU" else "a"
        raise UsageError(f"{section} must be {article} {base.__name__}, got {got or shown}")
    check_decorated(type(option))
    check_fields(option)
    for field in dataclasses.fields(option):  # type: ignore[arg-type]
        where = f"{type(option).__name__}.{field.name}"
        if field.name == "name":
            raise UsageError(f"{where} cannot be a field: a config stores the name of the class there")
        if not field.init and "statistic" not in field.metadata:
            raise UsageError(f"{where} cannot have init=False: a config holds the arguments of the class")


def split_commas(words: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return names that are separated by spaces or commas; None for None."""
    return None if words is None else tuple(name for word in words for name in word.split(",") if name)


def import_modules(names: Sequence[str]) -> None:
    """Import the user's modules, from the working folder too, so that a config can name their classes.

    Raises UsageError for one that is missing or fails.
    """
    here = str(Path.cwd())
    if names and here not in sys.path:
        sys.path.insert(0, here)
    for name in names:
        if name.endswith(".py") or "/" in name:
            raise UsageError(f"--import takes the name of a module, such as {Path(name).stem}, got {name!r}")
        if name == main_name():
            continue  # it is running: importing it again would define its classes twice
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever the module does
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            raise UsageError(f"cannot import {name}, looked for in {here} too: {why}") from error
