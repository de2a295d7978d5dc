"""Every example runs as a script, is short, and ends with its run loaded in a new process, which it starts."""

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import anystep
from anystep.evaluation.metrics import METRICS

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
#: example -> what it leaves in its folder
WRITES = {
    "write_a_method": ["noisy_times/samples/samples_8.png"],
    "write_a_metric": ["brightness/scores.json"],
    "bring_a_network": ["own_network/samples/samples_1.png", "own_network/samples/samples_4.png"],
    "bring_a_data_set": ["discs/samples/samples_1.png", "discs/samples/samples_4.png"],
    "features_condition": ["points.npz", "place/run.json"],
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run an example as the program of this process, which has loaded torch; return what it and its process print."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(anystep.__file__).parents[1]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("anystep.training.preview.IMAGES", 0)  # no previews
    monkeypatch.setattr("anystep.training.preview.VECTORS", 0)

    def program(name: str, *words: str) -> str:
        monkeypatch.setattr(sys, "argv", [str(EXAMPLES / f"{name}.py"), *(words or [str(tmp_path / "runs of mine")])])
        runpy.run_path(sys.argv[0], run_name="__main__")
        for path in WRITES.get(name, []):
            assert (tmp_path / "runs of mine" / path).stat().st_size > 0
        return capfd.readouterr().out

    return program


@pytest.mark.parametrize("name", ["write_a_method", "bring_a_network", "bring_a_data_set"])
def test_classes_of_one_s_own_are_found_by_a_new_process(name: str, run: Callable[..., str]) -> None:
    run(name)


def test_a_metric_of_one_s_own_is_scored_and_printed(run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "brightness", METRICS["frechet"])  # the example's own takes its place for now
    printed = run("write_a_metric")
    assert "brightness (contrast)" in printed
    squared = [float(line.split()[1]) for line in printed.splitlines() if re.match(r"[14] 0", line)]
    table = [float(line.split()[1]) for line in printed.splitlines() if re.match(r" +[14] ", line)]
    np.testing.assert_allclose(squared, np.square(table), atol=0.01)  # order 2 is the square of order 1


def test_a_feature_is_followed_guided_and_left_out_in_a_new_process(run: Callable[..., str]) -> None:
    """The place is one deviation from the middle: twice that in x, and more of it with guidance."""
    lines = run("features_condition").splitlines()
    numbers = [re.findall(r"-?[0-9]+[.][0-9]*", line) for line in lines]
    (plain, guided, left_out) = [np.array([float(number) for number in row][-4:]) for row in numbers]
    assert plain[0] == pytest.approx(2, abs=0.5) and guided[0] > plain[0] + 0.3
    assert guided[2] < plain[2] < left_out[2]


@pytest.mark.parametrize("name", WRITES)
def test_an_example_fits_on_a_screen(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 60


def test_the_docs_show_every_example() -> None:
    text = (EXAMPLES.parent / "docs" / "extending.md").read_text()
    assert all(f"(../examples/{name}.py)" in text and f"python examples/{name}.py" in text for name in WRITES)


def test_a_training_step_passes_through_at_most_twelve_files(run: Callable[..., str]) -> None:
    count, *names = run("files_of_a_step", "digits-shortcut_paper").split("\nand ")[0].splitlines()
    assert "  objectives/shortcut.py" in names and "  training/update.py" in names
    assert int(count.split()[0]) == len(names) <= 12
