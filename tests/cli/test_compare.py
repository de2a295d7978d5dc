"""What `anystep compare` makes is made once, adds up by hand, and survives being stopped and methods that fail."""

import json
import re
import signal
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anystep.cli.compare import parse_compare
from anystep.cli.progress import ComparisonProgress, losses
from anystep.comparison import trials
from anystep.comparison.compare import Choices, compare, plan_trials
from anystep.comparison.outcome import steps_caution, train_seconds
from anystep.comparison.processes import attempt_all
from anystep.comparison.trials import Trial, TrialEvent
from anystep.core.errors import RunError
from anystep.figures.methods import display_name
from anystep.flow.coupling import CouplingConfig
from anystep.flow.penalties import NoWeight
from anystep.objectives import OBJECTIVES
from anystep.recipes import PAPER
from anystep.run import checkpoint
from anystep.run.facts import read_config
from anystep.run.log import RunLog
from anystep.run.plan import forward_units
from anystep.training.signals import StopRequest

from .conftest import Command
from .test_mistakes import assert_told, tree

SMALL = (
    "--images 640 --batch 32 --device cpu --network.hidden 16 --network.depth 1 --optimizer.warmup 0 --preview.num 0"
)
POINTS = f"compare two_moons {SMALL} --methods shortcut,flow_matching --steps 1 4 --num 32"
DIGITS = f"compare digits {SMALL} --network.heads 2 --methods flow_matching reflow --steps 1 2 --num 32"
#: a module that leaves a file for each process that imports it
LEAVES_FILES = 'import os; from pathlib import Path; Path(f"imported-{os.getpid()}").touch()'
#: what depends on the machine and not on the run
VARYING = ("seconds", "train_seconds")


def written(out: str = "runs/compare-two_moons") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(out) / "compare.json").read_text())
    return found


def fixed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in VARYING} for row in rows]


def test_a_second_call_trains_and_scores_nothing(command: Command) -> None:
    assert command(POINTS).code == 0
    runs, first = tree(Path("runs")), written()
    said = command(POINTS)
    assert said.code == 0
    assert "training" not in said.err and "scoring" not in said.err
    assert tree(Path("runs")) == runs and written() == first


@pytest.mark.usefixtures("undrawn")
def test_another_budget_is_scored_and_nothing_is_trained(command: Command) -> None:
    command(POINTS)
    said = command(POINTS.replace("--steps 1 4", "--steps 1 2 4"))
    assert said.code == 0 and "training" not in said.err
    assert said.err.count("scoring 64 network calls") == 2  # 32 samples in 2 steps, for each method
    assert [row["steps"] for row in written()["scores"]] == [1, 2, 4] * 2


def test_the_json_is_a_contract(command: Command) -> None:
    said = command(f"{POINTS} --json copy/scores.json")
    found = written()
    assert json.loads(Path("copy/scores.json").read_text()) == found
    assert list(found) == ["recipe", "budget", "command", "scores", "summary", "failures"]
    assert found["recipe"] == "two_moons-flow_matching" and found["command"].startswith("anystep compare two_moons ")
    assert found["budget"] == 640 * 3 and found["failures"] == []
    for row in found["scores"]:
        assert row.keys() > {"method", "seed", "steps", "guidance", "frechet", "energy", "network_calls", "protocol"}
        assert row["network_calls"] == row["steps"] and row["protocol"]["num"] == 32
        assert row["train_seconds"] > 0
        assert row["images"] == (640 if row["method"] == "flow_matching" else 544)  # 640 / (1 + 1/6), in whole batches
        assert abs(row["forward_units"] - found["budget"]) <= 32 * 3.5 / 2
    for path in ("compare.json", "table.txt", "scores.png", "samples.png"):
        assert f"runs/compare-two_moons/{path}" in said.out.splitlines()


def test_the_table_has_every_method_and_what_it_cost(command: Command) -> None:
    said = command(POINTS)
    found = written()
    table = said.out.splitlines()[4:]
    lines = {line.strip().split("  ")[0]: line.split() for line in table if re.match(" {2}[a-z]", line)}
    assert lines.keys() == {"shortcut", "flow matching"}
    names = {row["method"]: display_name(row["method"]) for row in found["summary"]}
    for method, line in lines.items():
        means = {row["steps"]: row["mean"]["frechet"] for row in found["summary"] if names[row["method"]] == method}
        units = {row["forward_units"] for row in found["scores"] if names[row["method"]] == method}
        assert [float(cell.strip("()*~")) for cell in line[-3:-1]] == pytest.approx([means[4], means[1]], abs=6e-3)
        assert {int(line[-1].replace(",", ""))} == units
    text = Path("runs/compare-two_moons/table.txt").read_text()
    assert all(line in text.splitlines() for line in table if line.startswith("  "))
    assert "32 samples against 20,000 of two_moons" in text and "Energy distance" in text
    assert "of two_moons, columns, seed 0" in text
    assert max(map(len, said.out.splitlines())) <= 100


@pytest.mark.usefixtures("undrawn")
def test_two_seeds_give_mean_and_spread(command: Command) -> None:
    said = command(f"{POINTS} --seeds 3 5 --metrics frechet")
    out = Path("runs/compare-two_moons")
    for row in written()["summary"]:
        alone = [
            score["frechet"]
            for seed in (3, 5)
            for score in json.loads((out / f"{row['method']}-seed{seed}/scores.json").read_text())["scores"]
            if score["steps"] == row["steps"]
        ]
        assert len(set(alone)) == 2 and row["seeds"] == [3, 5]
        assert row["mean"] == {"frechet": statistics.mean(alone)}
        assert row["spread"] == {"frechet": max(alone) - min(alone)}
    assert said.out.count("±") == 5  # four cells and the line that says what it is
    assert "largest minus smallest over seeds 3, 5" in said.out


def test_every_method_costs_the_same_and_has_the_same_of_everything_else() -> None:
    args, base = parse_compare(["digits", "--images", "51200", "--network.hidden", "64", "--optimizer.lr", "0.25"])
    assert args.methods is None and base.objective.name == "flow_matching"
    made = plan_trials(base, Path("out"), Choices(seeds=(0, 1)))
    assert {trial.method for trial in made} == {*OBJECTIVES, *PAPER} and len(made) == 2 * len({*OBJECTIVES, *PAPER})
    for trial in made:
        assert forward_units(trial.config) == pytest.approx(3 * 51200, rel=0.03)
        assert trial.config.network.hidden == 64 and trial.config.optimizer.lr == 0.25  # type: ignore[attr-defined]
        assert trial.config.data == base.data and trial.config.training.batch == base.training.batch
        assert trial.run == Path("out") / f"{trial.method}-seed{trial.seed}"


@pytest.mark.parametrize("options", [[], ["--images", "100000", "--batch", "192"]])
def test_a_family_and_its_recipes_are_one_comparison(options: list[str]) -> None:
    """They share a folder, and the cost is rounded to whole updates once."""
    made = [
        plan_trials(parse_compare([name, *options])[1], Path("out"), Choices())
        for name in ("digits", "digits-shortcut", "digits-reflow", "digits-progressive_distillation")
    ]
    assert made[0] == made[1] == made[2] == made[3]


@pytest.mark.usefixtures("undrawn")
def test_methods_may_be_left_out(command: Command) -> None:
    assert Choices(methods=["imm", "ict", "shortcut"], without=["ict"]).names() == ["imm", "shortcut"]
    rest = [name for name in (*OBJECTIVES, "improved_shortcut_paper") if name not in {"shortcut", "flow_matching"}]
    said = command(
        POINTS.replace("--methods shortcut,flow_matching", f"--without {','.join(rest[:3])} {' '.join(rest[3:])}")
    )
    assert said.code == 0
    assert {row["method"] for row in written()["scores"]} == {"shortcut", "flow_matching"}  # as published here


def test_a_method_as_published_is_a_row_of_its_own() -> None:
    """Where the recipe is as published already, it is not trained twice."""
    _, base = parse_compare(["digits", "--weight", "own_error", "--weight.cap", "7", "--coupling.batches", "2"])
    made = {trial.method: trial.config for trial in plan_trials(base, Path("out"), Choices(without=["imm"]))}
    assert made["shortcut"].weight.name == made["live_reflow"].weight.name == made["ict"].weight.name == "own_error"
    assert made["shortcut"].coupling == made["flow_matching"].coupling == base.coupling
    published = made["shortcut_paper"]
    assert published.weight == NoWeight() and published.coupling == CouplingConfig()
    assert published.recipe == "digits-shortcut_paper"
    assert forward_units(published) == pytest.approx(forward_units(made["shortcut"]), rel=0.01)
    assert made["improved_shortcut_paper"].penalty.name == "haar"
    (one, other) = plan_trials(base, Path("out"), Choices(methods=["shortcut", "shortcut_paper"]))
    assert (one.run.name, other.run.name) == ("shortcut-seed0", "shortcut_paper-seed0")
    _, plane = parse_compare(["two_moons", "--weight", "none"])
    assert "shortcut_paper" not in {trial.method for trial in plan_trials(plane, Path("out"), Choices())}


@pytest.mark.usefixtures("undrawn")
def test_a_later_comparison_keeps_what_is_still_true(command: Command) -> None:
    """The table is of everything that is finished, not of the last call; scores of another kind are said to be gone."""
    command(f"{POINTS} --seeds 0 1")
    whole = written()["scores"]
    later = POINTS.replace("shortcut,flow_matching --steps 1 4", "shortcut --steps 2")
    said = command(later)
    assert said.code == 0 and "training" not in said.err and "are dropped" not in said.err
    found = written()["scores"]
    (new,) = [row for row in found if row["steps"] == 2]
    assert new["method"] == "shortcut" and new["seed"] == 0
    order = [(row["method"], row["seed"], row["steps"]) for row in whole]
    assert sorted(order) == sorted((r["method"], r["seed"], r["steps"]) for r in found if r["steps"] != 2)
    assert all(row in whole for row in found if row["steps"] != 2)
    (line,) = [line for line in said.out.splitlines() if line.startswith("  flow matching")]
    assert line.split().count("–") == 1  # never scored in 2 steps
    Path("runs/compare-two_moons/shortcut-seed1/config.json").write_text("{}")
    said = command(later.replace("--num 32", "--num 16"))
    assert "8 earlier scores of runs/compare-two_moons/compare.json are dropped: runs" in said.err
    assert [(row["method"], row["steps"]) for row in written()["scores"]] == [("shortcut", 2)]


def test_seconds_of_training_are_those_of_every_time(tmp_path: Path) -> None:
    def lines(*found: dict[str, float]) -> float | None:
        (tmp_path / "timing.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found))
        return train_seconds(tmp_path)

    assert lines({"begun": 1, "seconds": 100}, {"begun": 2, "seconds": 150}, {"begun": 2, "seconds": 300}) == 400
    assert lines() is None


def test_the_time_after_the_last_record_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("anystep.run.log.time.monotonic", lambda: clock[0])
    with RunLog(tmp_path, 0, 0):
        clock[0] = 7.0
    assert train_seconds(tmp_path) == 7.0


def test_few_steps_of_what_learns_velocities_are_in_parentheses_as_in_the_paper() -> None:
    """Frans et al. 2024, Table 1: distillation in 128 and 4 steps, diffusion and flow matching in 4 and 1."""
    marked = {name: {n for n in (128, 4, 1) if steps_caution(OBJECTIVES[name](), n)} for name in OBJECTIVES}
    expected = {"progressive_distillation": {128, 4}, "diffusion": {4, 1}, "flow_matching": {4, 1}}
    assert {name: found for name, found in marked.items() if found} == expected


def test_a_config_keeps_its_own_methods_options(command: Command) -> None:
    command("train eight_gaussians-shortcut TINY --out run --objective.share 0.5")
    _, base = parse_compare(["run", "--methods", "shortcut"])
    (trial, other) = plan_trials(base, Path("out"), Choices(methods=["shortcut", "flow_matching"]))
    assert trial.config.objective.share == 0.5 and other.config.objective.name == "flow_matching"  # type: ignore[attr-defined]
    assert forward_units(trial.config) == pytest.approx(320 * (3 + 2 * 0.5), rel=0.06)


@pytest.mark.usefixtures("undrawn")
def test_a_weight_is_for_the_methods_that_have_such_examples(command: Command) -> None:
    said = command(f"{POINTS.replace(',', ',live_reflow,')} --weight own_error --weight.full-from 0.5")
    assert said.code == 0
    names = {path.name: read_config(path).weight.name for path in Path("runs/compare-two_moons").glob("*-seed0")}
    assert names == {"shortcut-seed0": "own_error", "live_reflow-seed0": "own_error", "flow_matching-seed0": "none"}
    assert "weight own_error: all but flow matching" in said.out and "coupling" not in said.out
    said = command(f"{POINTS} --out other --coupling.batches 2")
    assert "coupling optimal transport: all\n" in said.out


@pytest.mark.usefixtures("undrawn")
def test_a_changed_option_is_refused_before_anything_is_trained(command: Command) -> None:
    command(POINTS)
    before = tree(Path("runs"))
    said = command(POINTS.replace("shortcut,", "live_reflow,shortcut,") + " --optimizer.lr 0.5")
    assert_told(
        said, 2, r"shortcut-seed0 holds a run with optimizer\.lr 0\.001, not 0\.5: give another --out, or delete"
    )
    assert tree(Path("runs")) == before


def test_what_is_in_the_way_of_a_run_is_refused_first(command: Command) -> None:
    Path("out/flow_matching-seed0").mkdir(parents=True)
    Path("out/flow_matching-seed0/thesis.tex").write_text("x")
    assert_told(command(f"{POINTS} --out out"), 1, "out/flow_matching-seed0 is in the way and holds no run")
    assert list(tree(Path("out"))) == ["flow_matching-seed0", "flow_matching-seed0/thesis.tex"]


def test_too_few_examples_for_a_metric_are_refused_before_anything_is_trained(command: Command) -> None:
    np.savez("three.npz", images=np.arange(192, dtype=np.uint8).reshape(3, 8, 8, 1))
    words = f"compare npz32 {SMALL} --images 32 --batch 2 --network.heads 2 --data.path three.npz --num 16"
    words += " --data.labels None"
    said = command(f"{words} --methods flow_matching --steps 1 --out out")
    assert_told(
        said, 2, "^anystep: precision needs at least 4 examples, and .* has 3: add some, or choose other --metric"
    )
    assert list(Path().iterdir()) == [Path("three.npz")]
    assert command(f"{words} --methods flow_matching --steps 1 --metrics frechet --out out").code == 0


def interrupting(monkeypatch: pytest.MonkeyPatch, images: int) -> list[str]:
    """Send Ctrl-C once, when a run tells of so many images; the list will hold that run's name."""
    shown, sent = ComparisonProgress.show, list[str]()

    def show(self: ComparisonProgress, trial: Trial, news: TrialEvent) -> None:
        shown(self, trial, news)
        if not sent and news.doing == "train" and news.done >= images:
            sent.append(trial.run.name)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ComparisonProgress, "show", show)
    return sent


@pytest.mark.usefixtures("undrawn")
def test_a_stopped_comparison_goes_on_to_the_same_scores(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(f"{POINTS} --out whole").code == 0
    with monkeypatch.context() as patched:
        assert interrupting(patched, 320) == []
        said = command(f"{POINTS} --out cut")
    assert said.code == 130, said.err
    assert "stopped; 0 of 2 runs are done, and checkpoints saved" in said.err
    assert f"resume with: anystep {POINTS} --out cut\n" in said.err
    assert {path.name for path in Path("cut").iterdir()} == {"shortcut-seed0"}
    assert command(f"{POINTS} --out cut").code == 0
    assert fixed(written("cut")["scores"]) == fixed(written("whole")["scores"])
    for method in ("shortcut", "flow_matching"):
        logs = [Path(out, f"{method}-seed0/log.jsonl").read_bytes() for out in ("cut", "whole")]
        assert logs[0] == logs[1]


@pytest.mark.usefixtures("undrawn")
def test_runs_in_processes_of_their_own_hear_of_a_signal(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        sent = interrupting(patched, 32)
        said = command(f"{POINTS} --images 64000 --out cut --jobs 2")
    assert sent and said.code == 130, said.err
    assert "checkpoints saved\nresume with: anystep compare" in said.err
    for run in Path("cut").iterdir():
        ((step, _),) = checkpoint.listing(run / "checkpoints")
        assert 0 < step < 64000 // 32


@pytest.mark.usefixtures("undrawn")
def test_runs_in_processes_of_their_own_are_the_same_runs_and_import_what_this_one_does(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module of the working folder, where an installed command does not look."""
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    Path("leaves_files.py").write_text(LEAVES_FILES)
    for jobs in (1, 2):
        assert command(f"{POINTS} --out jobs{jobs} --jobs {jobs} --import json --import leaves_files").code == 0
    assert fixed(written("jobs1")["scores"]) == fixed(written("jobs2")["scores"])
    assert sys.modules.pop("leaves_files") and len(list(Path().glob("imported-*"))) == 1 + 2


@pytest.mark.usefixtures("undrawn")
def test_a_method_that_fails_leaves_the_others(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    train = trials.train

    def diverging(config: Any, *args: Any, **kwargs: Any) -> Any:
        if config.objective.name == "shortcut":
            raise RunError("stopped at step 7: loss not finite")
        if config.objective.name == "live_reflow":
            raise KeyError("a fault")
        return train(config, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(trials, "train", diverging)
        said = command(POINTS.replace("shortcut,", "shortcut,live_reflow,"))
    assert said.code == 1
    assert "failed: shortcut, seed 0: stopped at step 7: loss not finite" in said.out
    found = written()
    assert [(row["method"], row["steps"]) for row in found["failures"]] == [("shortcut", None), ("live_reflow", None)]
    fault = Path("runs/compare-two_moons/live_reflow-seed0/failed.txt")
    assert found["failures"][1]["why"] == f"KeyError: 'a fault' (traceback: {fault})"
    assert "in diverging" in fault.read_text() and list(fault.parent.iterdir()) == [fault]
    assert {row["method"] for row in found["scores"]} == {"flow_matching"}
    assert {row["mean"]["frechet"] is None for row in found["summary"] if row["method"] == "shortcut"} == {True}
    (line,) = [line for line in said.out.splitlines() if line.startswith("  shortcut")]
    assert line.split()[1:3] == ["failed", "failed"]
    assert command(POINTS.replace("shortcut,", "shortcut,live_reflow,")).code == 0  # what had failed is tried again
    assert not fault.exists() and (fault.parent / "config.json").exists()


@pytest.mark.usefixtures("undrawn")
def test_samples_that_are_not_finite_are_a_failure_of_their_budget(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = trials.evaluate

    def broken(*args: Any, **kwargs: Any) -> Any:
        rows = evaluate(*args, **kwargs)
        for row in rows:
            if (row["method"], row["steps"]) == ("shortcut", 4):
                row |= {"frechet": None, "notes": ["3 of 32 samples are not finite: the network has diverged"]}
        return rows

    monkeypatch.setattr(trials, "evaluate", broken)
    said = command(POINTS)
    assert said.code == 1
    assert "failed: shortcut, seed 0, 4 steps: 3 of 32 samples are not finite" in said.out
    (line,) = [line for line in said.out.splitlines() if line.startswith("  shortcut")]
    assert line.split()[1] == "failed" and float(line.split()[2].rstrip("*")) > 0


def test_a_process_that_dies_is_a_failed_run() -> None:
    """Not one that says why: what the system kills says nothing."""
    _, base = parse_compare(f"two_moons {SMALL}".split())
    (made,) = plan_trials(base, Path("nowhere"), Choices(methods=["flow_matching"]))
    lethal = replace(made, config=_Lethal())  # type: ignore[arg-type]
    results = attempt_all([lethal, lethal], lambda trial, news: None, StopRequest(), jobs=2)
    assert [result.failed for result in results] == ["its process ended with exit code -9"] * 2


class _Lethal:
    """What kills the process that receives it."""

    def __reduce__(self) -> Any:
        return signal.raise_signal, (signal.SIGKILL,)


def test_a_phase_that_is_announced_does_not_hide_what_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    _, base = parse_compare(f"two_moons {SMALL}".split())
    trial, *_ = plan_trials(base, Path("out"), Choices())
    with ComparisonProgress() as progress:
        progress.show(trial, TrialEvent("train", 0, 640, text="phase teacher: images 0 to 320"))
    run = trial.run.name
    assert capsys.readouterr().err == f"{run}: training 640 images\n{run}: phase teacher: images 0 to 320\n"


def test_help_fits_and_has_the_sections_that_methods_share(command: Command) -> None:
    said = command("compare two_moons --help-all")
    assert max(map(len, said.out.splitlines())) <= 108  # the longest is what tyro makes of a list of choices
    assert "--network.hidden" in said.out and "--objective." not in said.out and "--init." not in said.out


def test_what_a_method_decides_is_refused_from_a_person_only_where_it_differs(command: Command) -> None:
    for option in ("--network.prediction noise", "--network.guidance-input", "--network.step_encoding=log2"):
        said = command(f"compare digits {option}")
        name = option.split()[0].partition("=")[0].replace("_", "-")
        assert_told(said, 2, f"^anystep: {name} is set by each method: omit it\n$")
    _, base = parse_compare(["digits", "--network.step-encoding", "none"])  # as flow matching has it
    assert base == parse_compare(["digits"])[1]


def test_a_dry_run_is_every_run_with_its_cost_and_writes_nothing(command: Command) -> None:
    said = command(f"{POINTS} --dry-run --seeds 0 1")
    assert said.code == 0 and said.err == ""
    trials = plan_trials(
        parse_compare(POINTS.split()[1:])[1], Path("out"), Choices(["shortcut", "flow_matching"], seeds=[0, 1])
    )
    lines = {line.split()[0]: line.split()[1:] for line in said.out.splitlines() if "-seed" in line}
    costs = {
        trial.run.name: [f"{n:,}" for n in (trial.config.training.steps, trial.config.training.images, units)]
        for trial in trials
        for units in [forward_units(trial.config)]
    }
    assert lines == costs and len(costs) == 4
    total = sum(forward_units(trial.config) for trial in trials)
    assert f"4 runs in runs/compare-two_moons, {total:,} forward passes" in said.out
    assert tree(Path()) == {}


def test_pictures_show_each_method_and_budget(command: Command) -> None:
    """Digits in blocks of four, the same noise for all; a network that has hardly learned shows it."""
    said = command(f"{DIGITS} --out out")
    assert said.code == 0, said.err
    with Image.open("out/samples.png") as picture, Image.open("out/scores.png") as figure:
        assert figure.width > figure.height > 500
        grey = np.asarray(picture.convert("L"))
    cell, gap, margin, head = 40, 3, 14, 40
    block = 4 * (cell + gap) - gap + 2 * margin
    assert grey.shape[0] == head + 2 * (cell + gap) + 2 * margin  # two groups of one method
    left = grey.shape[1] - 2 * block
    rows = [head, head + cell + gap + margin]
    for y in rows:
        two, one = (grey[y : y + cell, x : x + cell].astype(float).ravel() for x in (left, left + block))
        assert one.std() > 0 and np.corrcoef(one, two)[0, 1] > 0.8
    assert "phase reflow" in said.err


@pytest.mark.usefixtures("undrawn")
def test_without_matplotlib_it_is_said_first_and_the_rest_is_written(command: Command) -> None:
    said = command(POINTS)
    assert said.code == 0
    assert said.err.splitlines()[0].startswith("figures need matplotlib: pip install -e '.[report]'")
    assert {path.name for path in Path("runs/compare-two_moons").glob("*.*")} == {"compare.json", "table.txt"}


def test_from_python_a_comparison_is_one_call(tmp_path: Path) -> None:
    _, base = parse_compare(f"two_moons {SMALL}".split())
    news: list[tuple[str, str]] = []
    found = compare(
        base,
        tmp_path,
        Choices(methods=["flow_matching"], steps=[1], num=16),
        watch=lambda trial, told: news.append((trial.method, told.doing)),
    )
    (row,) = found.scores()
    assert found.complete and row["method"] == "flow_matching" and row["forward_units"] == found.budget
    assert list(dict.fromkeys(news)) == [("flow_matching", doing) for doing in ("train", "score", "end")]


def test_a_line_of_losses_names_steps_as_steps_and_phases() -> None:
    record = {"phase": "1/8", "loss_by_level": {"flow": 1.0, "1/64": 0.5, "reflow": 0.25, "1": None}, "skipped": 0}
    assert losses(record) == "1/8  loss  flow 1.0000  d=1/64 0.5000  reflow 0.2500"
    assert losses(record | {"phase": "train", "skipped": 2}).endswith("reflow 0.2500  skipped 2")
