"""What the documents say to type is accepted, and what they point to is there."""

import re
import shlex
from pathlib import Path

import pytest

from anystep.cli import compare, data_inspect, sections, train
from anystep.cli.data import VERBS
from anystep.cli.doctor import DoctorOptions
from anystep.cli.evaluate import EvaluateOptions
from anystep.cli.main import SUBCOMMANDS
from anystep.cli.parse import parse
from anystep.cli.recipes import RecipesOptions
from anystep.cli.report import ReportOptions
from anystep.cli.sample import SampleOptions
from anystep.data import Folder

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
OPTIONS = {
    "doctor": DoctorOptions,
    "evaluate": EvaluateOptions,
    "recipes": RecipesOptions,
    "report": ReportOptions,
    "sample": SampleOptions,
}


def commands() -> list[tuple[str, str]]:
    """(page, command line) of every line of a fenced block that begins with anystep; comments go."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```[^\n]*\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            found += [(str(page.relative_to(ROOT)), line.strip()) for line in lines if line.startswith("anystep ")]
    return found


def test_there_are_commands_to_look_at() -> None:
    assert len(commands()) > 10
    assert {line.split()[1] for _, line in commands()} <= set(SUBCOMMANDS)


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_that_is_shown_is_accepted(page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "from_run", lambda config, run: config)  # the run to start from is not here
    monkeypatch.setattr(sections, "missing_data", lambda config: None)  # nor is the data
    monkeypatch.setattr(data_inspect, "find_source", lambda path: ("folder32", Folder(path=str(path))))
    _, verb, *words = shlex.split(line, comments=True)
    if verb == "train":
        train.parse_train(words)
    elif verb == "compare":
        compare.parse_compare(words)
    elif verb == "data":
        assert words.pop(0) in VERBS
        data_inspect.parse_inspect(words)
    else:
        parse(OPTIONS[verb], words, verb, "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert [target for target in local if not (page.parent / target).exists()] == []
