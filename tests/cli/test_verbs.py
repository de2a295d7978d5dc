"""What the verbs do when nothing is wrong."""

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anystep.cli.main import VERBS
from anystep.recipes import RECIPES
from anystep.training.config import from_json
from anystep.training.trainer import read_config

from .conftest import Command
from .test_mistakes import tree


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(command: Command, verb: str) -> None:
    said = command(f"{verb} --help")
    assert said.code == 0 and said.err == ""
    assert f"example: anystep {verb}" in said.out
    assert f"  {verb} " in command("--help").out


def test_a_recipes_help_shows_its_own_defaults(command: Command) -> None:
    assert re.search(r"--data\.heldout", command("train digits-shortcut --help").out)
    assert re.search(r"--data\.path", command("train folder-shortcut --help").out)


def test_train_says_what_to_do_next_and_resume_has_nothing_to_do(command: Command, runs: Path) -> None:
    before = tree(runs / "points")
    said = command("train eight_gaussians-shortcut --out RUNS/points --resume --json last.json")
    assert said.code == 0
    assert said.out.splitlines() == [
        f"trained 10 steps: {runs}/points",
        f"sample it with: anystep sample {runs}/points --steps 1 4 128",
    ]
    assert json.loads(Path("last.json").read_text()) == {"run": f"{runs}/points", "step": 10}
    assert tree(runs / "points") == before


@pytest.mark.parametrize("source", ["RUNS/points", "RUNS/points/config.json"])
def test_a_run_is_made_again_from_its_directory_or_its_config(command: Command, runs: Path, source: str) -> None:
    """Without --out beside the recipe's other runs, never into the run that it came from."""
    before = tree(runs / "points")
    assert command(f"train {source}").code == 0
    again = tree(Path("runs/eight_gaussians-shortcut"))
    varying = {"timing.jsonl"}
    assert {k: v for k, v in again.items() if k not in varying} == {k: v for k, v in before.items() if k not in varying}
    assert tree(runs / "points") == before
    assert "already holds a run" in command(f"train {source}").err


def test_a_run_directory_with_resume_is_the_run_that_goes_on(command: Command) -> None:
    command("train eight_gaussians-shortcut TINY --out here")
    said = command("train here --resume --images 640")
    assert said.code == 0, said.err
    assert said.out.startswith("trained 20 steps: here")
    assert read_config(Path("here")).training.images == 640
    assert not Path("runs").exists()


def test_options_reach_the_config(command: Command) -> None:
    words = "--seed 7 --optimizer.betas 0.8 0.9 --data.labels --objective.clip 4 --ema.no-warmup --log.every 64"
    assert command(f"train two_moons-shortcut TINY {words} --out run").code == 0
    config = read_config(Path("run"))
    assert (config.training.seed, config.training.images, config.training.batch) == (7, 320, 32)
    assert config.optimizer.betas == (0.8, 0.9)
    assert config.data.labels is True and config.ema.warmup is False and config.objective.clip == 4.0
    assert len(Path("run/log.jsonl").read_text().splitlines()) == 5


def test_samples_are_one_array_a_budget(command: Command) -> None:
    said = command("sample RUNS/digits --steps 1 3 --num 12 --format npz --out drawn")
    assert said.out.splitlines() == ["drawn/samples_1.npz", "drawn/samples_3.npz"]
    with np.load("drawn/samples_1.npz") as one, np.load("drawn/samples_3.npz") as three:
        assert set(one.files) == {"samples", "labels"}
        assert one["samples"].shape == (12, 8, 8, 1) and one["samples"].dtype == np.uint8
        assert one["labels"].tolist() == [*range(10), 0, 1]
        assert not np.array_equal(one["samples"], three["samples"])
        # a network that has hardly learned shows its noise: budgets share it
        assert np.corrcoef(one["samples"].ravel(), three["samples"].ravel())[0, 1] > 0.8


def test_a_sample_is_decided_by_seed_and_number(command: Command) -> None:
    def drawn(words: str) -> np.ndarray:
        assert command(f"sample RUNS/digits --format npz --out drawn {words}").code == 0
        with np.load("drawn/samples_4.npz") as file:
            return file["samples"].astype(int)

    whole = drawn("--steps 4 --num 16")
    np.testing.assert_array_equal(drawn("--steps 1 4 --num 6"), whole[:6])
    np.testing.assert_array_equal(drawn("--steps 4 --refine 3 11"), whole[[3, 11]])
    assert np.abs(drawn("--steps 4 --num 16 --seed 1") - whole).max() > 0
    assert np.abs(drawn("--steps 4 --num 16 --weights raw") - whole).max() > 0


def test_a_label_is_for_all_samples(command: Command) -> None:
    command("sample RUNS/digits --steps 2 --num 5 --label 3 --format npz --out drawn")
    with np.load("drawn/samples_2.npz") as file:
        assert file["labels"].tolist() == [3] * 5


def test_our_own_samples_can_be_trained_on(command: Command) -> None:
    command("sample RUNS/digits --steps 2 --num 40 --format npz --out drawn")
    said = command("train npz-shortcut --data.path drawn/samples_2.npz --data.images samples DIT --out run")
    assert said.code == 0, said.err


def test_pictures_are_the_samples(command: Command) -> None:
    command("sample RUNS/digits --steps 1 2 --num 4 --out drawn")
    command("sample RUNS/digits --steps 1 2 --num 4 --format npz --out drawn")
    assert {path.name for path in Path("drawn").glob("*.png")} == {"samples_1.png", "samples_2.png", "steps.png"}
    with np.load("drawn/samples_2.npz") as file, Image.open("drawn/samples_2.png") as picture:
        shown = set(np.asarray(picture.convert("L")).ravel().tolist())
        assert set(file["samples"].ravel().tolist()) <= shown


def test_samples_between_two_noises_begin_and_end_at_them(command: Command) -> None:
    command("sample RUNS/digits --steps 4 --num 4 --label 2 --format npz --out ends")
    command("sample RUNS/digits --steps 4 --num 4 --label 2 --interpolate 4 --format npz --out between")
    with np.load("ends/samples_4.npz") as ends, np.load("between/samples_4.npz") as between:
        pixels = np.abs(between["samples"][[0, -1]].astype(int) - ends["samples"][[0, 1]])
        assert pixels.max() <= 1  # cos(pi/2) is not quite 0


def test_points_are_drawn_as_a_scatter_plot_or_an_array(command: Command) -> None:
    assert command("sample RUNS/points --steps 1 2 --num 50 --out drawn").out == "drawn/samples.png\n"
    command("sample RUNS/points --steps 2 --num 50 --format npz --out drawn")
    with np.load("drawn/samples_2.npz") as file:
        assert file.files == ["samples"]
        assert file["samples"].shape == (50, 2) and file["samples"].dtype == np.float32
        assert np.isfinite(file["samples"]).all()


def test_guidance_that_is_trained_in_may_be_applied_again_on_purpose(command: Command) -> None:
    assert command("sample RUNS/guided --steps 1 --num 2 --guidance 2 --guide-twice --out drawn").code == 0
    assert command("sample RUNS/guided --steps 128 --num 2 --guidance 2 --out drawn").code == 0  # d = 0: not trained in


def test_scores_have_the_layout_that_others_read(command: Command, runs: Path) -> None:
    said = command("evaluate RUNS/digits --steps 1 4 --num 64 --metrics frechet,recall --json new/scores.json")
    assert said.code == 0, said.err
    written = json.loads(Path("new/scores.json").read_text())
    assert written == json.loads((runs / "digits" / "scores.json").read_text())
    assert list(written) == ["scores"]
    assert [(row["method"], row["steps"], row["guidance"]) for row in written["scores"]] == [
        ("shortcut", 1, 1.0), ("shortcut", 4, 1.0),
    ]  # fmt: skip
    for row in written["scores"]:
        assert row["frechet"] > 0 and 0 <= row["recall"] <= 1 and "precision" not in row
        assert {"num", "seed"} <= row["protocol"].keys() or row["protocol"]
        assert f"{row['frechet']:.3f}" in said.out


def test_a_table_of_scores_fits_eighty_columns(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert "…" not in command("evaluate RUNS/digits --steps 1 --num 64").out


def test_a_report_is_one_page_that_loads_nothing(command: Command, runs: Path) -> None:
    said = command("report RUNS/digits RUNS/guided --steps 1 2 --out report")
    assert said.code == 0, said.err
    page = Path("report/report.html").read_text()
    assert {path.name for path in Path("report").iterdir()} == {"report.html", "steps.png", "interpolation.png"}
    assert not re.findall(r"(?:src|href)=[\"'](?!data:|#)[^\"']*", page)
    for run in ("digits", "guided"):
        assert f"anystep train {runs / run}/config.json" in html.unescape(page)


def test_recipes_are_listed_and_their_json_makes_the_configs(command: Command) -> None:
    said = command("recipes --json recipes.json")
    assert all(name in said.out for name in RECIPES)
    written = json.loads(Path("recipes.json").read_text())["recipes"]
    assert {name: from_json(values) for name, values in written.items()} == {n: make() for n, make in RECIPES.items()}


def test_doctor_finds_what_is_installed(command: Command) -> None:
    from importlib.metadata import version

    assert command("doctor --json doctor.json").code == 0
    found = json.loads(Path("doctor.json").read_text())
    assert found["versions"]["torch"] == version("torch")
    assert set(found) == {"versions", "devices", "extras"}
    assert found["extras"]["report"]["installed"] == version("matplotlib")


def test_the_module_is_the_command_and_survives_a_reader_that_goes_away() -> None:
    command = [sys.executable, "-m", "anystep"]
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert "usage: anystep VERB" in helped.stdout
    for words in ("--help", "recipes"):
        read, write = os.pipe()
        os.close(read)
        gone = subprocess.run([*command, words], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
        os.close(write)
        assert (gone.returncode, gone.stderr) == (1, "")
