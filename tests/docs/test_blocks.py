"""Every block of README, CONTRIBUTING and docs runs: Python, and `anystep` in this process, with small numbers.

What is made smaller, always in the same way:

- `train` and `compare`: `--images` is a few updates, `--batch` at most 64, the network tiny, pairs few, images 8 x 8;
  no previews, one job, transport over two batches, and all is on the CPU.
  A run that resumes or starts from another is as that one is.
- `compare` has the first seed, at most 4 steps, and the first three of the methods that it names; shortcut models and
  flow matching if it names none, and beside them those that it is to run without. The same comparison runs once.
- `sample` and `evaluate` take 16 steps where more are named.
- `--num` is at most 16 (`sample`, `evaluate`, `compare`), `--condition` has 3 rows, `report` shows at most 4 steps.
- `data classifier` sees 640 images. `data inception`, which downloads, shows its help, and metrics of Inception
  features are those of pixels.
- In Python `images=N` is 128. A block that begins with `# mine.py` is that file.
- Other programs are not run: their scripts, options, targets and files are looked up.
"""

import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest
from tests.docs.pages import DIT, PAGES, ROOT, SMALL, Block, blocks

from anystep.cli.main import main
from anystep.comparison.compare import NAMES
from anystep.run.facts import read_config

#: methods whose runs have several phases, or bins that double over the run: an update each, at least
LONG = ("progressive_distillation", "consistency", "reflow", "ict")
SHELL, PYTHON, PRINTED = ("", "sh"), "python", "text"
#: command lines of `compare` that have been run on another page
COMPARED: set[str] = set()


def commands(block: str) -> Iterator[list[str]]:
    """Yield the words of each command of a shell block; comments are dropped."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while "&&" in words:
            yield words[: words.index("&&")]
            words = words[words.index("&&") + 1 :]
        if words:
            yield words


def capped(words: list[str], option: str, most: int) -> list[str]:
    """Return the words with the value of an option at most this, set to it where the option is missing."""
    if option not in words:
        return [*words, option, str(most)]
    place = words.index(option) + 1
    return [*words[:place], str(min(int(words[place]), most)), *words[place + 1 :]]


def without(words: list[str], *options: str) -> list[str]:
    """Return the words without these options and the words that follow each."""
    kept, dropping = [], False
    for word in words:
        dropping = word in options if word.startswith("--") else dropping
        kept += [] if dropping else [word]
    return kept


def smaller(words: list[str]) -> list[str]:
    """Return the command as it is run here (the docstring of this file)."""
    if not words:
        return words
    subcommand, rest = words[0], words[1:]
    if subcommand == "data":
        verbs = {"classifier": capped(words, "--images", 640), "inception": ["data", "inception", "--help"]}
        return verbs.get(rest[0], words)
    rest = ["frechet" if word in {"fid", "kid"} else word.removesuffix("@inception") for word in rest]
    if subcommand in {"sample", "evaluate", "compare"} and not {"--refine", "--interpolate"} & set(rest):
        rest = capped(rest, "--num", 3 if "--condition" in rest else 16)
    if subcommand in {"sample", "evaluate"}:
        named = dict.fromkeys(min(int(step), 16) for step in values(rest, "--steps"))
        rest = [*without(rest, "--steps"), "--steps", *map(str, named)]
    if subcommand == "report":
        named = few(values(rest, "--steps")) if "--steps" in rest else ["1", "4"]
        rest = [*without(rest, "--steps"), "--steps", *named]
    if subcommand not in {"train", "compare"} or "--dry-run" in rest or "--help" in rest or "--help-all" in rest:
        return [subcommand, *rest]
    recipe, resumed = rest[0], "--resume" in rest or Path(rest[0]).exists()
    if subcommand == "train" and resumed:
        return [subcommand, *(capped(rest, "--images", 2048) if "--images" in rest else rest)]
    rest = without(rest, "--jobs", "--ema.profile-every", "--optimizer.warmup", "--json")
    rest = capped(rest, "--batch", 64)
    batch = int(rest[rest.index("--batch") + 1])
    updates = 20 if any(name in recipe for name in LONG) else 3
    rest = capped(without(rest, "--images"), "--images", updates * batch)
    if "reflow" in recipe and "live" not in recipe:
        rest += ["--objective.pairs", "64", "--objective.pair-steps", "2"]
    if re.match("folder|npz|hub", recipe):
        rest = [*without(rest, "--data.size"), "--data.size", "8"]
    if "--init-from" in rest:
        return [subcommand, *rest, "--device", "cpu", "--preview.num", "0"]
    rest = without(rest, *(word for word in DIT.split() if word.startswith("--")))
    if subcommand == "compare":
        rest = fewer(rest)
    vectors = recipe.startswith(("vectors", "two_moons", "eight_gaussians", "checkerboard"))
    return [subcommand, *rest, *(SMALL if vectors else DIT).split()]


def fewer(words: list[str]) -> list[str]:
    """Return the options of `compare` with fewer methods, seeds and steps."""
    named = listed(words, "--methods") or ["shortcut", "flow_matching", *listed(words, "--without")]
    assert set(named) <= set(NAMES), named
    most = 3 if "--methods" in words else len(named)
    words = [*without(words, "--methods"), "--methods", *named[:most]]
    if "--seeds" in words:
        seed = words[words.index("--seeds") + 1]
        words = [*without(words, "--seeds"), "--seeds", seed]
    steps = few(values(words, "--steps")) if "--steps" in words else ["1", "2"]
    return [*without(words, "--steps"), "--steps", *steps]


def few(steps: list[str]) -> list[str]:
    """Return those that are at most 4."""
    return [step for step in steps if int(step) <= 4]


def values(words: list[str], option: str) -> list[str]:
    """Return the words that follow an option."""
    after = words[words.index(option) + 1 :]
    return list(takewhile(lambda word: not word.startswith("--"), after))


def listed(words: list[str], option: str) -> list[str]:
    """Return the names that follow an option, by spaces or commas; none without it."""
    return ",".join(values(words, option)).split(",") if option in words else []


def run_anystep(words: list[str]) -> None:
    words = smaller(words)
    line = shlex.join(words)
    if words[:1] == ["train"] and "--resume" not in words and "--out" in words:
        shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)  # a stand-in gives way
    if words[:1] == ["compare"]:
        without_out = shlex.join(without(words, "--out"))
        if without_out in COMPARED:
            return
        COMPARED.add(without_out)
        if "--out" not in words:
            shutil.rmtree(f"runs/compare-{words[1]}", ignore_errors=True)  # that of another line, of another length
    try:
        assert main(words) == (0 if words else 2), f"anystep {line}"
    except SystemExit as stop:  # --help
        assert not stop.code, f"anystep {line}"


def look_up(words: list[str]) -> None:
    """Check that what another program is given exists. Fails for a program that is not known here."""
    match words:
        case ["make", target, *_]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words
        case ["python", script, *options] if script.endswith(".py"):
            look_up_script(script, options)
        case ["pip", "install", *options]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            named = {
                name for option in options for name in re.findall(r"\w+", "".join(re.findall(r"\[(.*)\]", option)))
            }
            assert named <= set(extras), words
            assert "-c" not in options or (ROOT / options[options.index("-c") + 1]).exists(), words
        case ["python3", "-m", "venv", folder] | [".", folder]:
            assert folder.startswith(".venv"), words
        case ["git", "clone", _] | ["cd", _]:
            pass
        case _:
            pytest.fail(f"a command that no test runs: {shlex.join(words)}")


def look_up_script(script: str, options: list[str]) -> None:
    path = Path(script) if Path(script).exists() else ROOT / script
    text = path.read_text(encoding="utf-8")
    imported = re.findall(r"^from (\w+) import", text, re.MULTILINE)
    siblings = [sibling for name in imported if (sibling := path.with_name(f"{name}.py")).exists()]
    text += "".join(sibling.read_text(encoding="utf-8") for sibling in siblings)
    for option in options:
        assert not option.startswith("--") or f'"{option}"' in text, f"{script} has no {option}"


def run_shell(block: Block) -> None:
    for words in commands(block.text):
        if words[0] == "anystep":
            run_anystep(words[1:])
        else:
            look_up(words)


def run_python(block: Block, page: Path, names: dict[str, object]) -> None:
    if name := re.match(r"# (\w+\.py)\n", block.text):
        Path(name[1]).write_text(block.text)
        return
    code = re.sub(r"\bimages=[\d_]+", "images=128", block.text)
    exec(compile("\n" * block.line + code, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run_in_order(page: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(here))
    names: dict[str, object] = {"__name__": "mine"}
    for block in blocks(page):
        if block.reason is not None or block.language == PRINTED:
            continue
        try:
            if block.language == PYTHON:
                run_python(block, page, names)
            else:
                assert block.language in SHELL, f"a block in {block.language!r}"
                run_shell(block)
        except BaseException as error:
            error.add_note(f"{page.relative_to(ROOT)}, line {block.line}")
            raise
        finally:
            sys.modules.pop("mine", None)  # the page's own module, which other tests have another of


def test_no_block_is_left_out() -> None:
    """A block that no test can run has a comment with the reason before it. There is none."""
    assert [(page.name, block.line) for page in PAGES for block in blocks(page) if block.reason is not None] == []


def test_scripts_that_are_named_in_sentences_are_there() -> None:
    """`python benchmarks/x.py --option`, beside every number."""
    for page in PAGES:
        for line in re.findall(r"`(python (?:benchmarks|examples)/[^`]+)`", page.read_text(encoding="utf-8")):
            look_up(shlex.split(" ".join(line.split())))


def test_a_run_here_is_as_small_as_is_said(world: Path) -> None:
    assert read_config(world / "runs" / "mine").training.images == 128
    assert smaller(shlex.split("train digits-shortcut --images 140000 --out x"))[1:6] == [
        *("digits-shortcut", "--out", "x", "--batch", "64")
    ]
