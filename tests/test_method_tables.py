"""The pages of methods say what the code and the results say: boxes, numbers, and none where there is no result."""

import inspect
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from anystep.objectives import OBJECTIVES

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import method_tables  # noqa: E402

#: distance at 1 and 128 steps, recall at 1
VALUES = {
    "shortcut": (0.8159, 0.15, 0.66),
    "flow_matching": (10.049, 0.1301, 0.0),
    "progressive_distillation": (0.7, 112.34, 0.7),
    "diffusion": (1234.5, 0.2, None),
}


def row(method: str, steps: int, frechet: float | None, recall: float | None, seeds: list[int]) -> dict[str, Any]:
    return {
        "method": method,
        "steps": steps,
        "seeds": seeds,
        "mean": {"frechet": frechet, "recall": recall},
        "spread": {"frechet": None if frechet is None else 0.25 / steps, "recall": 0.0},
        "caution": "for one step" if method == "progressive_distillation" and steps > 1 else None,
        "forward_units": 840192,
    }


def record(seeds: list[int]) -> dict[str, Any]:
    protocol = {"num": 2048, "reference_num": 1438, "reference": "digits", "features": "raw_pixels"}
    summary = [
        row(method, steps, frechet, recall, seeds)
        for method, (one, many, recall) in VALUES.items()
        for steps, frechet in ((1, one), (128, many))
    ]
    return {
        "budget": 840192,
        "command": "anystep compare digits",
        "scores": [{"method": method, "protocol": protocol} for method in VALUES],
        "summary": summary,
        "failures": [{"method": "diffusion", "seed": 1, "steps": None, "why": "diverged"}],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the pages."""
    shutil.copytree(method_tables.PAGES, tmp_path / "methods")
    return tmp_path / "methods"


def written(folder: Path, of: dict[str, Any]) -> dict[str, str]:
    """The pages as the script would write them, written; by name."""
    results = folder / "results.json"
    results.write_text(json.dumps(of))
    made = method_tables.pages(results, folder)
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")
    assert method_tables.pages(results, folder) == made, "a second time changes nothing"
    return {path.stem: text for path, text in made.items()}


def section(page: str) -> str:
    """What stands between the markers."""
    return page.partition("<!-- results -->")[2].partition("<!-- /results -->")[0]


def test_the_pages_have_the_committed_results() -> None:
    """Equal to what the script writes; without results there is nothing between the markers."""
    made = method_tables.pages(method_tables.RESULTS, method_tables.PAGES)
    assert {path.stem for path in made} == {*OBJECTIVES, "README", "one_step"}
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: python benchmarks/method_tables.py"
        if path.stem == "one_step":
            continue
        assert method_tables.RESULTS.exists() or "<!-- results -->\n<!-- /results -->" in text


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_page_has_the_box_of_the_docstring(name: str) -> None:
    box = (inspect.getdoc(OBJECTIVES[name]) or "").split("::\n\n")[1]
    lines = [" ".join(line.split()) for line in box.splitlines() if line.startswith("    ")]
    page = (method_tables.PAGES / f"{name}.md").read_text(encoding="utf-8")
    shown = [" ".join(line.split()) for line in page.splitlines() if line.startswith("    ")]
    assert len(lines) >= 3
    assert lines == shown[: len(lines)]


def test_a_page_has_its_method_beside_shortcut_and_flow_matching(folder: Path) -> None:
    pages = written(folder, record([0, 1]))
    assert (
        "| Frechet distance at steps | 1 | 128 | spread | recall at 1 |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| Progressive distillation | 0.700 | (112.3) | 0.25 | 0.70 |\n"
        "| Shortcut models | 0.816 | 0.150 | 0.25 | 0.66 |\n"
        "| Flow matching | 10.05 | 0.130 | 0.25 | 0.00 |\n"
    ) in pages["progressive_distillation"]
    assert "( ): conditions that the method is not intended to support." in pages["progressive_distillation"]
    assert "| Diffusion | 1,234.5 | 0.200 | 0.25 | – |" in pages["diffusion"]
    assert "Failed: diffusion, seed 1: diverged." in pages["diffusion"]
    assert "Failed" not in pages["shortcut"]
    assert "2,048 samples against 1,438 of digits, raw pixels; mean of seeds 0, 1; 840,192 network" in pages["shortcut"]
    assert "<!-- results -->\n<!-- /results -->" in pages["imm"], "it was not compared"


def test_one_seed_has_no_spread(folder: Path) -> None:
    page = written(folder, record([3]))["shortcut"]
    assert "| Shortcut models | 0.816 | 0.150 | 0.66 |" in page
    assert "spread" not in section(page).lower()
    assert "; seed 3; " in page


def test_the_index_has_every_method_in_the_papers_groups(folder: Path) -> None:
    index = written(folder, record([0, 1]))["README"]
    lines = section(index).splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("|")][2:] == [
        "*two phases*",
        "Progressive distillation",
        "*end to end*",
        "Diffusion",
        "Flow matching",
        "Shortcut models",
    ]
    assert "| Flow matching | 10.05 | 0.130 | 0.25 | 0.00 | 840,192 |" in index


def test_the_floor_is_the_last_row(folder: Path) -> None:
    """Results of earlier versions, as in the other tests, have none."""
    with_floor = record([0, 1])
    for one in with_floor["summary"]:
        one["floor"] = {"frechet": 0.0946}
    pages = written(folder, with_floor)
    assert "| Flow matching | 10.05 | 0.130 | 0.25 | 0.00 |\n| floor | 0.095 | 0.095 |  |  |\n\n" in pages["shortcut"]
    assert "| 840,192 |\n| floor | 0.095 | 0.095 |  |  |  |\n\n" in pages["README"]


def test_what_stands_around_the_section_stays(folder: Path) -> None:
    before = (folder / "reflow.md").read_text(encoding="utf-8")
    after = written(folder, record([0]) | {"summary": [row("reflow", 1, 1.0, 0.5, [0])]})["reflow"]
    assert after.split("<!-- results -->")[0] == before.split("<!-- results -->")[0]
    assert after.split("<!-- /results -->")[1] == before.split("<!-- /results -->")[1]


def test_a_method_without_a_page_and_a_page_without_a_place_are_named(folder: Path) -> None:
    with pytest.raises(SystemExit, match=r"new\.md is missing"):
        written(folder, record([0]) | {"summary": [row("new", 1, 1.0, 0.5, [0])]})
    (folder / "imm.md").write_text("# IMM\n")
    with pytest.raises(SystemExit, match=r"imm\.md must have one <!-- results -->"):
        written(folder, record([0]))


def one_step_rows(variant: str, seeds: list[int], frechet: float, trial: bool) -> list[dict[str, Any]]:
    about = {"variant": variant, "length": 1.0, "trial": trial, "seeds": seeds}
    spread = {"deviation": 0.01} if len(seeds) > 1 else {}
    scores = {"recall": 0.8, "flow_loss": 0.3, "frechet_floor": 0.1}
    return [about | {"steps": n, "frechet": frechet / n} | spread | scores for n in (1, 2)]


def test_variants_stand_in_the_order_of_one_step_and_trials_apart(tmp_path: Path) -> None:
    rows = [
        *one_step_rows("paper", [10, 11], 0.8, trial=False),
        *one_step_rows("all", [10, 11], 0.4, trial=False),
        *one_step_rows("ot", [0], 0.6, trial=True),
    ]
    path = tmp_path / "one_step_digits.json"
    path.write_text(json.dumps({"protocol": {"num": 64}, "results": {"summary": rows}}))
    judged, trials = method_tables.one_step(path).split("trials, on which")
    assert (
        "| variant | 1 | 2 | recall at 1 | flow loss | seeds |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| `all` | 0.400 ± 0.010 | 0.200 ± 0.010 | 0.80 | 0.300 | 10, 11 |\n"
        "| `paper` | 0.800 ± 0.010 | 0.400 ± 0.010 | 0.80 | 0.300 | 10, 11 |\n"
        "| floor | 0.100 | 0.100 |"
    ) in judged
    assert "| `ot` | 0.600 | 0.300 |" in trials and "`all`" not in trials
    assert method_tables.one_step(tmp_path / "none.json") == ""


def test_a_comparison_has_a_table_per_frechet_distance(tmp_path: Path) -> None:
    made = record([3])
    for each in made["summary"]:
        each["mean"] |= {"frechet@classifier": each["steps"] + 0.5, "recall@classifier": 0.25}
        each["floor"] = {"frechet": 0.1, "frechet@classifier": 0.2}
    (tmp_path / "compare_x.json").write_text(json.dumps(made))
    first, second = re.findall(r"(?:^\|.*\n)+", method_tables.comparison(tmp_path / "compare_x.json"), re.MULTILINE)
    assert "| `shortcut` | 0.816 | 0.150 | 0.66 |" in first and "| floor | 0.100 | 0.100 |  |" in first
    assert "| `frechet@classifier` at steps | 1 | 128 | recall at 1 |" in second
    assert "| `shortcut` | 1.50 | 128.5 | 0.25 |" in second and "| floor | 0.200 | 0.200 |  |" in second
    assert method_tables.comparison(tmp_path / "compare_y.json") == ""
