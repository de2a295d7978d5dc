"""What the verbs do when nothing is wrong."""

import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anystep.cli.main import SUBCOMMANDS
from anystep.cli.tables import print_scores
from anystep.recipes import find_recipe, recipe_names
from anystep.run.config import from_json
from anystep.run.facts import read_config
from anystep.run.plan import forward_units
from anystep.training.trainer import TrainResult

from .conftest import Command
from .test_mistakes import tree

VECTORS = (
    "--data.path own.npz --data.labels None --network.hidden 8 --images 64 --batch 32 --device cpu --preview.num 0"
)


def table(said: str) -> list[str]:
    """Return the head and the lines of the table of scores in what a command said, without marks."""
    before, after = re.split(r"^ ─+ *\n", said.replace("~", " "), flags=re.MULTILINE)
    return [before.splitlines()[-1], *after[: re.search(r"^ *$", after, re.MULTILINE).start()].splitlines()]


def test_the_command_alone_shows_every_verb_with_an_example(command: Command) -> None:
    said = command("")
    assert said.code == 2 and said.out == command("--help").out
    assert max(map(len, said.out.splitlines())) <= 80
    for verb, (what, example) in SUBCOMMANDS.items():
        assert f"  {verb:<8}  {what}\n            anystep {example}\n" in said.out


@pytest.mark.parametrize("verb", SUBCOMMANDS)
def test_every_verb_explains_itself_with_an_example(command: Command, verb: str) -> None:
    said = command(f"{verb} --help")
    assert said.code == 0 and said.err == ""
    assert f"example: anystep {verb}" in said.out
    assert f"  {verb} " in command("--help").out


def test_a_recipes_help_shows_its_own_defaults(command: Command) -> None:
    assert re.search(r"--data\.heldout", command("train digits-shortcut --help-all").out)
    assert re.search(r"--data\.path", command("train folder-shortcut --help-all").out)


def test_train_says_what_to_do_next_and_resume_has_nothing_to_do(command: Command, runs: Path) -> None:
    before = tree(runs / "points")
    said = command("train eight_gaussians-shortcut --out RUNS/points --resume --json last.json")
    assert said.code == 0
    assert said.out.splitlines() == [
        f"trained 10 steps: {runs}/points",
        f"samples of it:  anystep sample {runs}/points --steps 1 4 128",
        f"its scores:     anystep evaluate {runs}/points --steps 1 4 128",
        f"a page of both: anystep report {runs}/points",
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


def test_a_config_that_is_given_is_the_one_that_resumes_or_is_refused(command: Command) -> None:
    command("train eight_gaussians-shortcut TINY --out here")
    values = json.loads(Path("here/config.json").read_text())
    for name, rate in (("same", 0.01), ("other", 0.02)):
        values["optimizer"]["lr"] = rate
        Path(f"{name}.json").write_text(json.dumps(values))
    assert command("train same.json --out here --resume --images 640").out.startswith("trained 20 steps: here")
    said = command("train other.json --out here --resume --images 960")
    assert said.code == 2 and "optimizer.lr is 0.01, not 0.02" in said.err
    assert read_config(Path("here")).optimizer.lr == 0.01


def test_a_batch_and_a_share_that_go_together_need_not_pass_through_one_that_does_not(command: Command) -> None:
    """--batch is short for a field of a section; the config is made once, with both."""
    words = "--network.hidden 16 --images 2048 --batch 2048 --objective.share 0.005 --device cpu"
    said = command(f"train eight_gaussians-shortcut {words} --out here")
    assert said.code == 0, said.err


def test_a_run_that_begins_with_another_has_its_network_and_a_step_input(command: Command) -> None:
    size = "--network.hidden 24 --network.depth 2 --network.heads 2 --network.patch 2 --batch 32 --device cpu"
    assert command(f"train digits-flow_matching {size} --images 320 --out flow").code == 0
    tuned = "train digits-shortcut --init-from flow --images 640 --batch 128 --out tuned"
    assert command(f"{tuned} --images 128").code == 0
    flow, config = (read_config(Path(run)) for run in ("flow", "tuned"))
    assert config.network == replace(flow.network, step_encoding="log2")  # type: ignore[type-var]
    assert config.init.run == str(Path("flow").absolute())
    assert command(f"{tuned} --resume").code == 0  # the run it began with is known to it
    assert command("train tuned --resume --images 768").code == 0
    assert read_config(Path("tuned")).training.images == 768
    said = command("train digits-reflow --init-from flow --images 256 --batch 128 --objective.pairs 40 --out straight")
    assert said.code == 0 and "phase teacher" not in said.err
    assert "pairs: 40 x 32 steps, 1,280 network forward passes of 2,048 in all" in said.err
    assert "pairs: 40 of 40" in said.err
    said = command("train digits-mean_flow --init-from tuned --images 128 --batch 128 --out averaged")
    assert said.code == 0 and "network.time_scale stays 1000, that of init.run" in said.err
    assert read_config(Path("averaged")).network.step_encoding == "continuous"
    assert len(json.loads(Path("averaged/run.json").read_text())["notes"]) == 2


def test_a_run_that_stopped_in_its_teachers_phase_is_no_finished_one(command: Command) -> None:
    size = "--network.hidden 16 --network.depth 1 --network.heads 2 --network.patch 4 --batch 32 --device cpu"
    keep = "--checkpoint.every 32 --checkpoint.keep-last 9 --objective.pairs 32 --objective.pair-steps 1"
    assert command(f"train digits-reflow {size} --images 256 {keep} --out run").code == 0
    caution = "this checkpoint is of phase teacher (1 of 2): no reflow model yet"
    assert f"note: {caution}\n" in command("sample run --steps 1 --num 2 --checkpoint 4").err
    assert "note:" not in command("sample run --steps 1 --num 2").err
    for step, notes in ((4, [caution]), (8, [])):
        words = f"--steps 1 --num 80 --metrics frechet --checkpoint {step} --json scores.json"
        assert command(f"evaluate run {words}").code == 0
        (row,) = json.loads(Path("scores.json").read_text())["scores"]
        assert row["notes"] == notes
        assert row["run"] == f"run, step {step}" + (", phase teacher (1 of 2)" if notes else "")


@pytest.mark.parametrize(
    ("step", "saved"), [(0, "before the first update; the pairs so far are saved"), (5, "a checkpoint is saved")]
)
def test_what_a_stopped_run_has_saved(command: Command, monkeypatch: pytest.MonkeyPatch, step: int, saved: str) -> None:
    monkeypatch.setattr("anystep.cli.train.train", lambda *_, **__: TrainResult(step, signal.SIGTERM))
    said = command("train digits-reflow --images 1024 --batch 256 --out run")
    assert said.code == 143 and said.err.startswith(f"stopped at step {step} of 4; {saved}\n")


def test_options_reach_the_config(command: Command) -> None:
    words = "--seed 7 --optimizer.betas 0.8 0.9 --data.labels --objective.clip 4 --ema.no-warmup --log.every 64"
    assert command(f"train two_moons-shortcut TINY {words} --out run").code == 0
    config = read_config(Path("run"))
    assert (config.training.seed, config.training.images, config.training.batch) == (7, 320, 32)
    assert config.optimizer.betas == (0.8, 0.9)
    assert config.data.labels is True and config.ema.warmup is False and config.objective.clip == 4.0
    assert len(Path("run/log.jsonl").read_text().splitlines()) == 6  # of updates 1, 2, 4, 6, 8, 10


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


def test_every_guidance_scale_is_drawn_from_the_same_noise(command: Command) -> None:
    assert command("train digits-improved_shortcut DIT --objective.guidance_max 2 --out told").code == 0
    said = command("sample told --steps 1 3 --num 12 --guidance 1 1.5 2 --format npz --out drawn")
    names = [f"drawn/samples_{n}_w{scale}.npz" for scale in ("1", "1.5", "2") for n in (1, 3)]
    assert said.out.splitlines() == names and "note:" not in said.err
    command("sample told --steps 3 --num 12 --guidance 1.5 --format npz --out alone")
    command("sample told --steps 3 --num 12 --format npz --out unguided")
    for one, other in (("alone/samples_3", "drawn/samples_3_w1.5"), ("unguided/samples_3", "drawn/samples_3_w1")):
        with np.load(f"{one}.npz") as a, np.load(f"{other}.npz") as b:
            assert np.array_equal(a["samples"], b["samples"]) and np.array_equal(a["labels"], b["labels"])
    assert "note: guidance 3 is outside 1 ... 2" in command("sample told --steps 1 --num 2 --guidance 2 3").err
    assert "--guidance needs at least one scale" in command("sample told --steps 1 --guidance --num 2").err


def test_pictures_of_several_scales_are_a_table_of_scales_and_steps(command: Command) -> None:
    said = command("sample RUNS/digits --steps 1 32 --num 4 --guidance 0.5 2 --out drawn")
    found = {path.name for path in Path("drawn").glob("*.png")}
    assert found == {"guidance.png", *(f"samples_{n}_w{scale}.png" for n in (1, 32) for scale in ("0.5", "2"))}
    assert said.out.splitlines()[-1] == "drawn/guidance.png"
    assert command("sample RUNS/digits --steps 2 --num 4 --guidance 2 --out one").out == "one/samples_2.png\n"
    with Image.open("drawn/guidance.png") as table, Image.open("drawn/samples_32_w2.png") as sheet:
        assert set(np.asarray(sheet.convert("L")).ravel()) <= set(np.asarray(table.convert("L")).ravel())


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


def test_guidance_that_few_steps_were_not_trained_for_is_told(command: Command) -> None:
    said = command("sample RUNS/digits --steps 4 64 --guidance 2 --num 2")
    assert said.code == 0
    assert said.err.count("note:") == 1
    assert "note: guidance 2 uses the null condition, which was trained at d = 0 only" in said.err
    assert "note:" not in command("sample RUNS/digits --steps 64 --guidance 2 --num 2").err


def test_our_own_samples_can_be_trained_on(command: Command) -> None:
    command("sample RUNS/digits --steps 2 --num 40 --format npz --out drawn")
    said = command("train npz-shortcut --data.path drawn/samples_2.npz --data.images samples DIT --out run")
    assert said.code == 0, said.err


def test_a_run_finds_its_data_from_any_folder(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is kept absolute, and spelling it otherwise is no change of the run."""
    np.savez("own.npz", vectors=np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32))
    words = "train vectors-shortcut --data.path own.npz --data.labels None TINY --out run"
    assert command(words).code == 0
    assert command(f"{words} --resume").code == 0
    run = Path("run").resolve()
    monkeypatch.chdir("/")
    assert command(f"evaluate {run} --steps 1 --num 20").code == 0


def test_vectors_have_a_recipe_and_a_dit_sends_them_there(command: Command) -> None:
    np.savez("own.npz", vectors=np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32))
    words = "--data.path own.npz --data.labels None TINY"
    assert command(f"train vectors-shortcut {words} --out run").code == 0
    assert command("sample run --steps 2 --num 3 --format npz --out drawn").code == 0
    with np.load("drawn/samples_2.npz") as file:
        assert file["samples"].shape == (3, 5)
    said = command(f"train npz-shortcut --data.images vectors {words} --network.heads 2 --out other")
    assert re.search(r"expects uint8 images .* \(vectors: recipes vectors-\*\), got float32 \[\d+, 5\]", said.err)
    assert (
        "own.npz: no array 'labels'; the file contains vectors; without classes: --data.labels None"
        in command("train vectors-shortcut --data.path own.npz TINY --out other").err
    )


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


def test_vectors_of_any_length_have_a_picture_of_their_columns(command: Command) -> None:
    for width in (1, 3):
        vectors = np.random.default_rng(0).normal(size=(64, width))
        np.savez("own.npz", vectors=vectors)
        assert command(f"train vectors-flow_matching {VECTORS} --out v{width}").code == 0
        assert command(f"sample v{width} --steps 1 2 --num 50").out == f"v{width}/samples/samples.png\n"
        said = command(f"report v{width} --steps 1 2 --out report")
        assert said.out.splitlines() == ["report/columns.png", "report/report.html"]
        assert "Each column in 1 to many steps" in Path("report/report.html").read_text()
    Path("own.npz").unlink()
    said = command("report v3 --steps 1 --out report")
    assert said.code == 0 and "note: the data is not shown: " in said.err


def test_vectors_without_a_format_are_plotted_where_all_columns_show_else_arrays(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sampled(width: int, words: str = "") -> tuple[list[str], str]:
        said = command(f"sample v{width} --steps 1 4 --num 6 --out out{width} {words}")
        assert said.code == 0
        return [Path(line).name for line in said.out.splitlines()], said.err

    for width in (3, 17):
        np.savez("own.npz", vectors=np.random.default_rng(0).normal(size=(64, width)))
        assert command(f"train vectors-flow_matching {VECTORS} --out v{width}").code == 0
    arrays = ["samples_1.npz", "samples_4.npz"]
    assert sampled(3) == (["samples.png"], "")
    assert sampled(17) == (arrays, "note: vectors of 17 columns are written as arrays; --format png plots them\n")
    assert sampled(17, "--format png") == (["samples.png"], "")
    assert sampled(17, "--format npz") == (arrays, "")
    with np.load("out17/samples_4.npz") as file:
        assert file["samples"].shape == (6, 17) and file["samples"].dtype == np.float32
    monkeypatch.setattr("anystep.cli.sample.can_draw", lambda: False)
    names, note = sampled(3)
    assert names == arrays and note.startswith("note: vectors without matplotlib are written as arrays")


def test_order_is_the_objectives(command: Command) -> None:
    """The default named is the default; the other one makes other samples of a budget that is no power of two."""

    def drawn(words: str) -> np.ndarray:
        assert command(f"sample RUNS/digits --steps 3 --num 4 --format npz --out drawn {words}").code == 0
        with np.load("drawn/samples_3.npz") as file:
            return file["samples"]

    np.testing.assert_array_equal(drawn("--order small_last"), drawn(""))
    assert not np.array_equal(drawn("--order small_first"), drawn(""))


def test_runs_of_one_method_and_name_are_both_in_the_report(command: Command, runs: Path) -> None:
    for place in ("a", "b"):
        shutil.copytree(runs / "digits", f"{place}/run", ignore=shutil.ignore_patterns("scores.json"))
        assert command(f"evaluate {place}/run --steps 1 2 --num 16 --metrics frechet").code == 0
    heights = []
    for words in ("a/run", "a/run b/run"):
        said = command(f"report {words} --steps 1 2 --out report")
        assert said.code == 0
        with Image.open("report/steps.png") as picture:
            heights.append(picture.height)
    assert heights[1] > 1.8 * heights[0]
    page = Path("report/report.html").read_text()
    names = ["a/run", "a/run", "b/run", "b/run"]
    told = [found.split()[:2] for found in table(said.out)[1:-1]]
    assert told == [[n, s] for n, s in zip(names, "1212", strict=True)]
    assert re.findall("<h3>(.*?)</h3>", page) == ["a/run", "b/run"]
    assert re.findall(r"class=first><td>(.*?)</td>", page) == ["a/run", "b/run", "Floor"]
    assert command("report a/run a/run --steps 1").code == 2


def test_files_beside_runs_are_no_runs(command: Command, runs: Path) -> None:
    """As `report RUNS/*` finds beside the runs of a comparison."""
    for name in ("digits", "guided"):
        shutil.copytree(runs / name, f"cmp/{name}", ignore=shutil.ignore_patterns("scores.json", "report"))
    for name in ("compare.json", "table.txt"):
        Path("cmp", name).write_text("{}")
    said = command("report cmp/compare.json cmp/digits cmp/guided cmp/table.txt --steps 1")
    assert said.code == 0 and Path("cmp/digits/report/report.html").exists()
    assert said.err == "note: ignored, files and no run directories: cmp/compare.json, cmp/table.txt\n"
    assert "report needs a run directory" in command("report cmp/compare.json").err


def test_guidance_that_is_trained_in_may_be_applied_again_on_purpose(command: Command) -> None:
    assert command("sample RUNS/guided --steps 1 --num 2 --guidance 2 --guide-twice --out drawn").code == 0
    assert command("sample RUNS/guided --steps 128 --num 2 --guidance 2 --out drawn").code == 0  # d = 0: not trained in


def test_scores_have_the_layout_that_others_read(command: Command, runs: Path) -> None:
    shutil.copytree(runs / "digits", "run", ignore=shutil.ignore_patterns("scores.json"))
    said = command("evaluate run --steps 1 4 --num 64 --metrics frechet,recall --json new/scores.json")
    assert said.code == 0, said.err
    written = json.loads(Path("new/scores.json").read_text())
    assert written == json.loads(Path("run/scores.json").read_text())
    assert list(written) == ["scores"]
    assert [(row["method"], row["steps"], row["guidance"]) for row in written["scores"]] == [
        ("shortcut", 1, 1.0), ("shortcut", 4, 1.0),
    ]  # fmt: skip
    for row in written["scores"]:
        assert row["frechet"] > 0 and 0 <= row["recall"] <= 1 and "precision" not in row
        assert {"num", "seed"} <= row["protocol"].keys() or row["protocol"]
        assert f"{row['frechet']:.3f}" in said.out


def test_scores_of_other_budgets_stay_for_the_report(command: Command, runs: Path) -> None:
    shutil.copytree(runs / "digits", "run", ignore=shutil.ignore_patterns("scores.json"))
    for steps in ("1 4", "1", "2"):
        assert command(f"evaluate run --steps {steps} --num 16 --metrics frechet").code == 0
    assert [row["steps"] for row in json.loads(Path("run/scores.json").read_text())["scores"]] == [4, 1, 2]


def test_scores_that_the_run_cannot_keep_are_still_told_and_written(command: Command, runs: Path) -> None:
    shutil.copytree(runs / "digits", "run", ignore=shutil.ignore_patterns("scores.json"))
    Path("run/scores.json").mkdir()
    said = command("evaluate run --steps 1 --num 16 --metrics frechet --json scores.json")
    (row,) = json.loads(Path("scores.json").read_text())["scores"]
    assert said.code == 0 and f"{row['frechet']:.3f}" in said.out
    assert said.err == "anystep: scores are not saved in run/scores.json: Is a directory\n"
    assert said.out.endswith("\nscores with their protocol: scores.json\n")


@pytest.mark.parametrize("run", ["digits", "guided"])
def test_a_table_of_scores_fits_eighty_columns(command: Command, monkeypatch: pytest.MonkeyPatch, run: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = command(f"evaluate RUNS/{run} --steps 1 128 --num 64")
    scale = {"digits": 1, "guided": 2}[run]
    assert re.match(rf"shortcut, EMA 0\.5, guidance {scale}, accuracy \(real\) 0\.\d+\n", said.out)
    assert max(map(len, said.out[: said.out.index("scores with")].splitlines())) <= 80
    assert table(said.out)[0].split() == ["steps", "frechet", "precision", "recall", "accuracy"]
    assert [line.split()[0] for line in table(said.out)[1:]] == ["1", "128", "floor"]
    assert re.search(r"^floor: as many examples drawn from the reference; its deviation: frechet \d", said.out, re.M)


def test_a_table_of_all_that_can_differ_fits_eighty_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is cut off: a name that is too long goes on below."""
    monkeypatch.setenv("COLUMNS", "80")
    scores = {"frechet": 123.4567, "precision": 0.5, "recall": 0.25, "accuracy": 0.75, "accuracy_real": 0.984}
    rows = [
        {"method": "improved_shortcut", "run": f"improved_shortcut-seed{seed}, step 17", "steps": n,
         "guidance": scale, "notes": [], "protocol": {"ema": average}, **scores}
        for seed in (0, 1) for average in ("0.995", "power 0.05") for scale in (1.0, 1.5) for n in (128, 1)
    ]  # fmt: skip
    print_scores(rows)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    head, *lines = table(out)
    assert head.split() == ["run", "EMA", "steps", "guidance", "frechet", "precision", "recall", "accuracy"]
    assert "".join(line.split()[0] for line in lines[:2]) == "improved_shortcut-seed0"
    assert lines[0].split()[1:] == ["0.995", "1", "1", "123.457", "0.500", "0.250", "0.750"]
    assert out.startswith("improved shortcut, accuracy (real) 0.984\n")


def test_every_guidance_scale_is_scored_as_alone(command: Command) -> None:
    assert command("train digits-improved_shortcut DIT --out told").code == 0
    several = "evaluate told --steps 1 2 --num 32 --metrics frechet,accuracy --json {} --guidance {}"
    assert command(several.format("both.json", "1 2.5")).code == 0
    assert command(several.format("alone.json", "2.5")).code == 0
    both, alone = (json.loads(Path(name).read_text())["scores"] for name in ("both.json", "alone.json"))
    assert [(row["guidance"], row["steps"]) for row in both] == [(1, 1), (1, 2), (2.5, 1), (2.5, 2)]
    for row, again in zip(both[2:], alone, strict=True):
        assert row | {"seconds": 0} == again | {"seconds": 0}
    assert both[0]["frechet"] != both[2]["frechet"]


def test_an_average_is_chosen_after_training(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and a column for each, by the protocol's words; the same width again takes the row's place."""
    monkeypatch.setenv("COLUMNS", "80")
    kept = "--ema.profiles 0.05 0.1 --ema.profile-every 64"
    assert command(f"train eight_gaussians-shortcut TINY {kept} --out run").code == 0
    said = command("evaluate run --steps 1 4 --num 16 --metrics energy --weights ema 0.05 0.07,raw 0.050 --json x.json")
    assert said.code == 0, said.err
    assert said.out.startswith("shortcut, guidance 1\n")
    head, *lines, floor = table(said.out)
    assert head.split() == ["EMA", "steps", "energy"]
    told = [(name, n) for name in ("0.5", "power 0.05", "power 0.07", "raw") for n in (1, 4)]
    assert [tuple(line.rsplit(maxsplit=2)[:2]) for line in lines] == [(f" {name}", str(n)) for name, n in told]
    assert re.fullmatch(r" floor +0\.\d+ *", floor)
    scores = json.loads(Path("x.json").read_text())["scores"]
    assert [(row["protocol"]["ema"].replace("none", "raw"), row["steps"]) for row in scores] == told
    assert len({row["energy"] for row in scores}) == len(scores)
    said = command("evaluate run --steps 1 --num 16 --metrics energy --weights 0.07")
    assert said.out.startswith("shortcut, EMA power 0.07, guidance 1\n")
    again = json.loads(Path("run/scores.json").read_text())["scores"]
    assert len(again) == len(scores) and again[-1]["energy"] == scores[4]["energy"]
    for width in ("0.05", "0.07"):
        assert command(f"sample run --steps 1 --num 8 --format npz --out at-{width} --weights {width}").code == 0
    with np.load("at-0.05/samples_1.npz") as one, np.load("at-0.07/samples_1.npz") as other:
        assert not np.array_equal(one["samples"], other["samples"])
    note = r"note: width 0.2 can only be approximated from the stored averages \(its profile is \d+% off\): choose one"
    assert re.search(note, command("sample run --steps 1 --num 8 --weights 0.2").err)


def test_the_report_tells_averages_apart(command: Command) -> None:
    kept = "--ema.profiles 0.05 0.1 --ema.profile-every 64"
    assert command(f"train eight_gaussians-shortcut TINY {kept} --out run").code == 0
    assert command("evaluate run --steps 4 1 --num 16 --metrics energy --weights ema raw 0.1").code == 0
    told = [(name, n) for name in ("0.5", "raw", "power 0.1") for n in ("1", "4")]
    said = command("report run --steps 1 --out report")
    assert [tuple(line.rsplit(maxsplit=2)[:2]) for line in table(said.out)[1:-1]] == [(f" {a}", n) for a, n in told]
    page = Path("report/report.html").read_text()
    numbers = r'<td class="n">([^<]*)</td><td class="n">(\d+)</td>'
    cells = re.findall(r"<td>([^<]*)</td>" + numbers, page)
    assert cells == [("" if n else "shortcut", *row) for n, row in enumerate(told)]


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
    listed = {line.split()[0] for line in said.out.splitlines() if line.strip()}
    assert {f"{family}-{method}" for family in listed for method in listed} >= set(recipe_names())
    written = json.loads(Path("recipes.json").read_text())["recipes"]
    assert {name: from_json(values) for name, values in written.items()} == {
        name: find_recipe(name) for name in recipe_names()
    }


def test_a_recipe_is_printed_in_full_with_its_cost_and_time(command: Command) -> None:
    said = command("recipes eight_gaussians-reflow --json one.json")
    config, written = find_recipe("eight_gaussians-reflow"), json.loads(Path("one.json").read_text())
    assert from_json(written["config"]) == config
    shown = {line.split()[0] for line in said.out.splitlines() if line.startswith("  --")}
    values = {section: fields for section, fields in written["config"].items() if section not in ("recipe", "version")}
    options = {f"--{section}.{field}".replace("_", "-") for section in values for field in values[section]}
    assert shown == {option for option in options if not option.endswith(".name")}
    assert all(f"{section} {values[section]['name']}\n" in said.out for section in ("data", "network", "objective"))
    assert "--optimizer.betas         0.9 0.99\n" in said.out and "--objective.pair-steps     128\n" in said.out
    assert f"{forward_units(config):,} in all: 733 updates of 1,024 images, and pairs" in said.out
    assert written["cost"]["forward_passes"] == forward_units(config) and written["cost"]["seconds"] > 0
    assert re.search(
        r"parameters  1,[\d,]{7}, for eight_gaussians of 2, no classes\ntime        about \d+:\d\d:\d\d \(", said.out
    )
    assert [path.name for path in Path.cwd().iterdir()] == ["one.json"]


def test_a_recipe_whose_data_is_not_here_shows_what_can_be_shown(command: Command, pixels: np.ndarray) -> None:
    said = command("recipes folder-shortcut")
    assert "60,000,192 in all" in said.out and "--training.images            17142912" in said.out
    assert said.out.endswith("depend on the data, which is not here, and so does the time: add --data PATH\n")
    np.savez("own.npz", vectors=np.float32(pixels.reshape(12, -1)))
    assert "no array 'labels'" in command("recipes vectors --data own.npz").err
    np.savez("own.npz", vectors=np.float32(pixels.reshape(12, -1)), labels=np.arange(12) % 3)
    assert "for own of 192, 3 classes\n" in command("recipes vectors --data own.npz").out


def test_progress_is_shown_in_a_terminal(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    for words, shown in (
        ("train eight_gaussians-shortcut TINY --out run", "320 / 320 images"),
        ("evaluate run --steps 1 4 --num 32", "160 / 160 network calls"),
    ):
        said = command(words)
        assert said.code == 0 and shown in re.sub(r"\x1b\[[\d;]*m", "", said.err)


def test_doctor_finds_what_is_installed(command: Command) -> None:
    from importlib.metadata import version

    assert command("doctor --json doctor.json").code == 0
    found = json.loads(Path("doctor.json").read_text())
    assert found["versions"]["torch"] == version("torch")
    assert set(found) == {"versions", "devices", "extras"}
    assert f"OMP_WAIT_POLICY {os.environ.get('OMP_WAIT_POLICY', 'unset')}" in found["devices"]["threads"]
    assert found["extras"]["report"]["installed"] == version("matplotlib")


def test_the_module_is_the_command_and_survives_a_reader_that_goes_away() -> None:
    command = [sys.executable, "-m", "anystep"]
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert "usage: anystep SUBCOMMAND" in helped.stdout
    for words in ("--help", "recipes"):
        read, write = os.pipe()
        os.close(read)
        gone = subprocess.run([*command, words], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
        os.close(write)
        assert (gone.returncode, gone.stderr) == (1, "")
