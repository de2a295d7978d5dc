"""House rules that a test can keep (STYLE.md, ARCHITECTURE.md)."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import anystep

SOURCE = Path(anystep.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("name", anystep.__all__)
def test_a_public_name_is_there_and_says_what_it_is(name: str) -> None:
    thing = getattr(anystep, name)
    assert thing.__name__ == name
    doc = inspect.getdoc(thing)
    assert doc is not None and not doc.startswith(f"{name}("), "dataclass's own signature is no docstring"
    assert name in dir(anystep)


def test_public_names_are_the_same_at_run_time_and_for_type_checkers() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)]
    imported = {
        alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert imported == {name: f"anystep.{home}" for home, names in anystep._NAMES.items() for name in names}
    assert sorted(anystep.__all__) == sorted(imported)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'anystep' has no attribute 'smaple'"):
        _ = anystep.smaple  # type: ignore[attr-defined]


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import anystep, sys; print(sorted({'torch', 'numpy', 'PIL', 'tyro', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name.partition(".")[0] for name in found}


def test_nothing_imports_torchvision_or_what_does() -> None:
    barred = {"torchvision", "timm", "torch_fidelity", "cleanfid", "pytorch_fid", "lpips", "lerobot", "pickle"}
    assert {path.name: imports(path) & barred for path in FILES if imports(path) & barred} == {}


def test_no_file_is_too_long_and_none_is_a_drawer() -> None:
    assert {path.name: n for path in FILES if (n := len(path.read_text().splitlines())) > 400} == {}
    assert not {path.name for path in FILES} & {"utils.py", "helpers.py", "common.py", "misc.py"}
