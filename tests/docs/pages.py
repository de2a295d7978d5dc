"""The pages of README, CONTRIBUTING and docs, and their blocks in order."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
#: a comment before a block that no test can run; it has the reason
MARK = re.compile(r"<!-- not run: (.+) -->\n$")

#: the network and the length of every run here
SMALL = "--network.hidden 16 --network.depth 1 --device cpu --preview.num 0"
DIT = f"{SMALL} --network.heads 2 --network.patch 4 --coupling.batches 2"


class Block(NamedTuple):
    """A fenced block: ``language`` is "" for a shell, "python", or "text" for what a program prints."""

    line: int
    language: str
    text: str
    reason: str | None


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text, found = page.read_text(encoding="utf-8"), []
    for match in re.finditer(r"^```([^\n]*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        mark = MARK.search(text[: match.start()])
        line = text[: match.start()].count("\n") + 1
        found.append(Block(line, match[1].strip(), match[2], mark[1] if mark else None))
    return found
