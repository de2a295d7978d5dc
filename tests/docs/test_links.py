"""What the pages point to is there: files, headings, options."""

import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from tests.docs.pages import PAGES, ROOT

from anystep.codecs import CODECS
from anystep.data import SOURCES
from anystep.flow.penalties import PENALTIES, WEIGHTS
from anystep.networks import NETWORKS
from anystep.objectives import OBJECTIVES
from anystep.run import config

ALL = [*PAGES, ROOT / "CHANGELOG.md"]


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub forms them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", ALL, ids=named)
def test_a_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        leads_to = page if not path else (page.parent / path).resolve()
        if not leads_to.exists() or (anchor and anchor not in headings(leads_to)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_no_two_headings_have_one_anchor(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(headings(page)) == len(re.findall(r"^#+ (.+)$", text, re.MULTILINE))


def test_every_page_of_docs_is_in_its_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = [path for path in PAGES if path.parent == ROOT / "docs" and path.name != "README.md"]
    assert [path.name for path in pages if f"]({path.name}" not in index] == []


def options() -> set[str]:
    """Return every `section.field` of a config, with the classes that a section may hold."""
    sections = {
        "data": [SOURCES[name] for name in SOURCES],
        "network": [NETWORKS[name] for name in NETWORKS],
        "objective": [OBJECTIVES[name] for name in OBJECTIVES],
        "codec": [CODECS[name] for name in CODECS],
        "penalty": [PENALTIES[name] for name in PENALTIES],
        "weight": [WEIGHTS[name] for name in WEIGHTS],
    }
    for part in vars(config).values():
        if isinstance(part, type) and is_dataclass(part) and "_section" in vars(part):
            sections[vars(part)["_section"]] = [part]
    return {f"{name}.{field.name}" for name, classes in sections.items() for part in classes for field in fields(part)}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_an_option_that_a_sentence_names_exists(page: Path) -> None:
    known, others = options(), {"md", "py", "json", "jsonl", "FIELD"}
    sections = {name.split(".")[0] for name in known}
    code = " ".join(re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")))
    unknown = set()
    for section, field in re.findall(r"(?:--|(?<![\w./]))([a-z]+)\.([a-zA-Z][\w-]*)", code):
        name = f"{section}.{field.replace('-', '_')}"
        if section in sections and field not in others and not {name, name.replace(".no_", ".")} & known:
            unknown.add(name)
    assert unknown == set()
