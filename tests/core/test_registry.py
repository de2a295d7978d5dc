"""Names of things, and of classes in a user's own files."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from anystep.core.errors import UsageError
from anystep.core.registry import Option, Registry, check_option, find_class, import_modules, import_path, main_name
from anystep.objectives import OBJECTIVES, Objective, Shortcut


@dataclass(frozen=True)
class Base(Option, section="base"):
    x: int = 1


@dataclass(frozen=True)
class Other(Base):
    pass


def test_a_registry_is_a_mapping_that_imports_a_thing_when_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "late_thing.py").write_text("value = [1]\n")
    things: Registry[Any] = Registry({"late": "late_thing:value", "here": 3})
    assert list(things) == ["late", "here"] and len(things) == 2 and "late" in things and "never" not in things
    assert things["here"] == 3
    assert "late_thing" not in sys.modules
    sys.path.insert(0, str(tmp_path))
    try:
        assert things["late"] == [1] and things["late"] is things["late"]
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("late_thing", None)
    assert things.get("never") is None
    with pytest.raises(KeyError):
        things["never"]


def test_every_name_of_the_library_is_that_of_its_class() -> None:
    assert {name: method.name for name, method in OBJECTIVES.items()} == {name: name for name in OBJECTIVES}
    assert {OBJECTIVES.written(method) for method in OBJECTIVES.values()} == set(OBJECTIVES)


def test_one_method_imports_no_other() -> None:
    program = (
        "import sys; from anystep.objectives import FlowMatching; from anystep.data import Digits; "
        "print(sorted(m for m in sys.modules if m.startswith(('anystep.objectives.', 'anystep.data.', 'PIL'))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(
        [
            *(f"anystep.data.{name}" for name in ("base", "digits", "order", "source")),
            *(f"anystep.objectives.{name}" for name in ("base", "flow_matching")),
        ]
    )


def test_an_unknown_name_of_a_package_is_an_attribute_error() -> None:
    import anystep.objectives

    with pytest.raises(AttributeError, match=r"module 'anystep\.objectives' has no attribute 'Shortcuts'"):
        _ = anystep.objectives.Shortcuts
    with pytest.raises(ImportError):
        from anystep.data import Digit  # type: ignore[attr-defined]  # noqa: F401


def test_the_written_name_is_the_registrys_for_this_very_class_only() -> None:
    """A subclass inherits everything, and would be loaded as its parent without a word."""
    assert OBJECTIVES.written(Shortcut) == "shortcut"
    assert Registry[Any]({"base": Base}).written(Base) == "base"
    assert Registry[Any]({"base": Base}).written(Other) == f"{__name__}:Other"

    @dataclass(frozen=True)
    class Inner(Shortcut):
        pass

    assert Inner.name == "Inner"
    with pytest.raises(UsageError, match=r"Inner is defined inside a function, .*: move it to the top"):
        OBJECTIVES.written(Inner)


class Faked(Base):
    __module__ = "anystep.objectives.shortcut"
    __qualname__ = "Shortcut"


def test_a_class_that_calls_itself_another_is_not_taken_for_it() -> None:
    assert OBJECTIVES.written(Faked) == "anystep.objectives.shortcut:Shortcut"  # no key, and not found as Faked
    assert find_class("anystep.objectives.shortcut:Shortcut", Objective) is Shortcut


SPEC = type("Spec", (), {"name": "package.tool"})()


def module(name: str, **contents: object) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(contents)
    return made


@pytest.mark.parametrize(
    ("main", "name"),
    [
        (module("__main__", __file__="/home/me/train_mine.py", __spec__=None), "train_mine"),
        (module("__main__", __spec__=None), "__main__"),
        (module("__main__", __file__="/x/tool.py", __spec__=SPEC), "package.tool"),
    ],
)
def test_a_class_of_the_running_program_is_written_by_the_name_that_it_can_be_imported_by(
    monkeypatch: pytest.MonkeyPatch, main: ModuleType, name: str
) -> None:
    """A script, a notebook, `python -m package.tool`; in a spawned process the same file is `__mp_main__`."""
    for called in ("__main__", "__mp_main__"):
        made = type("Mine", (Base,), {"__module__": called, "__qualname__": "Mine"})
        mine = dataclass(frozen=True)(made)
        monkeypatch.setattr(main, "Mine", mine, raising=False)
        monkeypatch.setitem(sys.modules, "__main__", main)
        assert main_name() == name and import_path(mine) == f"{name}:Mine"
        assert find_class(import_path(mine), Base) is mine


def test_a_class_is_found_in_classes_too() -> None:
    assert find_class(f"{__name__}:Holder.Inner", Base) is Holder.Inner


class Holder:
    @dataclass(frozen=True)
    class Inner(Base):
        pass

    made = Base()


class Undecorated(Base):
    y: int = 1


@dataclass
class Plain:
    pass


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("not_imported_yet:Thing", r"is not imported: --import not_imported_yet, in Python imp"),
        ("subprocess:Popen", "subprocess:Popen is not a subclass of Base that can be used here"),
        ("os:system", "os:system is not a subclass of Base"),
        ("HERE:Plain", "Plain is not a subclass of Base"),
        ("HERE:Holder.made", "Holder.made is not a subclass of Base"),
        ("HERE:Holder.made.x", "has no class Holder.made.x"),
        ("HERE:Nothing", "has no class Nothing: renamed or removed"),
        ("HERE:", "has no class : renamed"),
        ("HERE:Undecorated", r"Undecorated must be a frozen dataclass: write @dataclass\(frozen=True\) above"),
        ("anystep.objectives.base:Objective", "is not a subclass of Base"),
    ],
)
def test_what_is_no_option_is_rejected_and_nothing_is_imported(wanted: str, message: str) -> None:
    before = set(sys.modules)
    with pytest.raises(UsageError, match=message):
        find_class(wanted.replace("HERE", __name__), Base)
    assert set(sys.modules) == before


def test_module_getattr_is_never_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module's own `__getattr__` is code, and a lazy module imports."""

    def made_up(name: str) -> object:
        raise AssertionError(f"called for {name}")

    monkeypatch.setitem(sys.modules, "lazy_one", module("lazy_one", __getattr__=made_up))
    with pytest.raises(UsageError, match="lazy_one has no class Thing"):
        find_class("lazy_one:Thing", Base)


def test_an_abstract_class_is_no_choice() -> None:
    with pytest.raises(UsageError, match="is not a subclass of Objective that can be used here"):
        find_class("anystep.objectives.base:Objective", Objective)


@dataclass(frozen=True)
class Named(Base):
    name: str = "x"  # type: ignore[misc]


@dataclass(frozen=True)
class Late(Base):
    y: int = field(default=1, init=False)


@dataclass(frozen=True)
class Paths(Base):
    where: Path = Path()

    def __post_init__(self) -> None:
        """Leave the checks out."""


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (Base, "base must be a Base, got the class Base, not an object of it"),
        ("base", "base must be a Base, got 'base'"),
        (Undecorated(), "Undecorated must be a frozen dataclass"),
        (Named(), "Named.name cannot be a field: a config stores the name of the class there"),
        (Late(), "Late.y cannot have init=False"),
        (Paths(), "Paths.where is declared as Path, which a config cannot hold"),
    ],
)
def test_what_a_config_cannot_hold_is_rejected(option: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_option("base", option, Base)


def test_own_modules_are_found_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("own_one.py").write_text("value = 1\n")
    Path("own_two.py").write_text("import nothing_of_this_name\n")
    Path("own_three.py").write_text("raise SyntaxError('bad\\nlines')\n")
    before = list(sys.path)
    import_modules([])
    assert sys.path == before
    import_modules(["own_one"])
    assert sys.modules.pop("own_one").value == 1
    for name, why in (
        ("own_two", "ModuleNotFoundError: No module named 'nothing_of_this_name'$"),
        ("own_three", "SyntaxError: bad$"),
        ("own_four", "No module named 'own_four'"),
    ):
        with pytest.raises(UsageError, match=f"cannot import {name}, looked for in .*: .*{why}"):
            import_modules([name])
    for wrong in ("own_one.py", "sub/own_one"):
        with pytest.raises(UsageError, match=f"takes the name of a module, such as own_one, got '{wrong}'"):
            import_modules([wrong])
