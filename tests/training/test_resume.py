"""An interrupted run equals an uninterrupted one bit for bit: parameters, averages, optimizer, log."""

import json
import os
import random
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.training.same import assert_same, assert_same_tensors, stopping

from anystep.core.errors import RunError, UsageError
from anystep.data import Digits
from anystep.objectives import OBJECTIVES, FlowMatching, Shortcut
from anystep.recipes import find_recipe
from anystep.run import checkpoint
from anystep.run.config import Config, InitConfig, OptimizerConfig, to_json
from anystep.run.directory import check_unchanged
from anystep.training.trainer import train

from .conftest import Whole

#: a child process that trains a config.json into several folders, and says each step that it has finished and, after
#: each folder, what stopped it
CHILD = """
import sys
from pathlib import Path
from anystep.training.signals import stop_on_signal
from anystep.run.facts import read_config
from anystep.training.trainer import train
for run in sys.argv[2:]:
    with stop_on_signal() as stop:
        outcome = train(read_config(Path(sys.argv[1])), Path(run), resume=True, stop=stop,
                        watch=lambda step, record: print(step, flush=True))
    print(outcome.stopped and outcome.stopped.name, flush=True)
"""


@pytest.mark.parametrize("at", [1, 5, 7, 23])
def test_stop_at_any_step_and_resume(small: Config, whole: Whole, tmp_path: Path, at: int) -> None:
    stop, watch = stopping(at)
    outcome = train(small, tmp_path / "parts", watch=watch, stop=stop)
    assert (outcome.step, outcome.stopped) == (at, signal.SIGTERM)
    assert train(small, tmp_path / "parts", resume=True).stopped is None
    assert_same(whole(small), tmp_path / "parts")


def test_lines_after_the_checkpoint_are_written_again(small: Config, whole: Whole, tmp_path: Path) -> None:
    """A crash after step 12 leaves log lines that the checkpoint of step 10 does not vouch for."""
    run = tmp_path / "parts"

    class CrashError(Exception):
        pass

    def watch(step: int, record: object) -> None:
        if step == 14:
            raise CrashError

    with pytest.raises(CrashError):
        train(small, run, watch=watch)
    assert len((run / "log.jsonl").read_text().splitlines()) == 6  # of steps 1, 2, 3, 6, 9, 12
    train(small, run, resume=True)
    assert_same(whole(small), run)


def test_a_rolled_out_run_whose_share_changes_resumes(small: Config, tmp_path: Path) -> None:
    objective = Shortcut(M=8, share=0.5, share_start=0.0, share_change=(0.2, 0.8), level="large", roll_out=2)
    config = replace(small, objective=objective)
    train(config, tmp_path / "whole")
    stop, watch = stopping(13)
    train(config, tmp_path / "parts", watch=watch, stop=stop)
    train(config, tmp_path / "parts", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_signals_to_a_real_process(small: Config, whole: Whole, tmp_path: Path) -> None:
    """SIGTERM and Ctrl-C at a random step save a checkpoint first; for SIGKILL see test_kill."""
    config, numbers = tmp_path / "config.json", (signal.SIGTERM, signal.SIGINT)
    config.write_text(json.dumps(to_json(small)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    runs = [tmp_path / number.name for number in numbers]
    command = [sys.executable, "-c", CHILD, str(config), *map(str, runs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        for number, run in zip(numbers, runs, strict=True):
            until, reached = random.Random(int(number)).randint(1, 20), 0
            while (line := child.stdout.readline().strip()).isdigit():
                reached = int(line)
                if reached == until:
                    child.send_signal(number)
            assert line == number.name
            assert checkpoint.listing(run / "checkpoints")[-1][0] == reached < small.training.steps
    assert child.returncode == 0
    for run in runs:
        train(small, run, resume=True)
        assert_same(whole(small), run)


def test_a_longer_run_goes_on_from_a_finished_one(small: Config, tmp_path: Path) -> None:
    """With a constant rate, 12 steps and then 12 more are 24 steps."""
    constant = replace(small, optimizer=replace(small.optimizer, decay=0.0))
    half = replace(constant, training=replace(constant.training, images=32 * 12))
    train(constant, tmp_path / "whole")
    train(half, tmp_path / "parts")
    train(constant, tmp_path / "parts", resume=True)
    assert_same_tensors(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("method", OBJECTIVES)
def test_a_run_may_grow_unless_its_targets_or_its_phases_depend_on_its_length(method: str) -> None:
    """The length of a curriculum moved would take the run back in it; pairs and shares are of the length asked for."""
    config = find_recipe(f"digits-{method}")
    longer = replace(config, training=replace(config.training, images=2 * config.training.images))
    if method in {"consistency_training", "ict", "alpha_flow"}:
        why: str | None = f"the targets of {method} depend on it"
    else:
        why = f"phases of {method} are fractions of it" if len(config.objective.phases()) > 1 else None
    with pytest.raises(UsageError, match=f"--images cannot change with --resume: .*{why}") if why else nullcontext():
        check_unchanged(config, longer, Path("run"))
    if method != "progressive_distillation" and not config.objective.scheduled:  # no teacher's phase, so one in all
        ready = InitConfig(run="flow")
        check_unchanged(replace(config, init=ready), replace(longer, init=ready), Path("run"))


def test_changed_data_is_refused(tiny: Config, tmp_path: Path) -> None:
    train(tiny, tmp_path / "run")
    facts = tmp_path / "run" / "run.json"
    facts.write_text(facts.read_text().replace('"fingerprint": "', '"fingerprint": "other'))
    with pytest.raises(RunError, match="has changed since the run began"):
        train(tiny, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": OptimizerConfig(lr=0.5)}, "optimizer.lr is 0.001, not 0.5; only --images, --device"),
        ({"objective": FlowMatching()}, "objective.name is shortcut, not flow_matching"),
        ({"data": Digits(heldout=0.5)}, "data.heldout is 0.2, not 0.5"),
        ({"recipe": "mine"}, "recipe is digits-shortcut, not mine"),
    ],
)
def test_a_run_goes_on_only_as_it_was_configured(
    tiny: Config, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    run = tmp_path / "run"
    train(tiny, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=message):
        train(replace(tiny, **change), run, resume=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("damage", ["truncate", "delete", "foreign"])
def test_damaged_checkpoints_are_named(tiny: Config, tmp_path: Path, damage: str) -> None:
    run = tmp_path / "run"
    train(tiny, run)
    last = checkpoint.listing(run / "checkpoints")[-1][1]
    file = last / ("state.json" if damage == "foreign" else "optimizer.safetensors")
    if damage == "truncate":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "delete":
        file.unlink()
    else:
        file.write_text('{"format": "other"}')
    longer = replace(tiny, training=replace(tiny.training, images=32 * 8))
    with pytest.raises(RunError, match=str(file)):
        train(longer, run, resume=True)
