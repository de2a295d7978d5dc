"""kill -9 at random moments of one run, going on each time, equals the run that nobody killed, bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.training.same import assert_same

from anystep.objectives import Objective, Reflow, Shortcut
from anystep.recipes.method import network_for
from anystep.run import checkpoint
from anystep.run.config import CheckpointConfig, Config, EmaConfig, to_json
from anystep.training import pairs
from anystep.training.trainer import train

#: a process that has torch in memory and forks one child for each line that it is sent. A child trains and writes a
#: byte after every update and for every line that it executes of what writes to disk: the moments to choose from
NURSERY = """
import os, sys
from dataclasses import replace
from pathlib import Path
import torch
from anystep.core import files
from anystep.run import checkpoint, log
from anystep.training import pairs
from anystep.run.facts import read_config
from anystep.training.trainer import train
torch.set_num_threads(1)
pairs.SHARD = 8
config, run = read_config(Path(sys.argv[1])), Path(sys.argv[2])
# torch imports more when it is first used: once, here
train(replace(config, training=replace(config.training, images=64)), Path(sys.argv[3]))
writers = (checkpoint.__file__, files.__file__, log.__file__)
def trace(frame, event, argument):
    if frame.f_code.co_filename not in writers or frame.f_code.co_name[0] == "<":
        return None  # another file, or a comprehension
    if event == "line":
        os.write(1, b".")
    return trace
def traced(function):
    def call(*arguments):
        sys.settrace(trace)
        try:
            return function(*arguments)
        finally:
            sys.settrace(None)
    return call
for place, name in ((checkpoint, "save"), (checkpoint, "prune"), (files, "write_bytes"), (log.RunLog, "write")):
    setattr(place, name, traced(getattr(place, name)))
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        train(config, run, resume=True, watch=lambda step, record: os.write(1, b"."))
        os._exit(0)
    os.write(1, b"%d\\n" % child)
    status = os.waitpid(child, 0)[1]
    os.write(1, b"\\n%d\\n" % os.waitstatus_to_exitcode(status))
"""


@contextmanager
def nursery(config: Path, run: Path) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-c", NURSERY, str(config), str(run), f"{run}-first"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def life(process: "subprocess.Popen[bytes]", moment: int | None) -> int:
    """Let a child train, killed at its ``moment``-th byte; return its exit code."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"go\n")
    said, pid, seen = b"", None, 0
    while byte := process.stdout.read(1):
        if byte == b".":
            seen += 1
        else:
            said += byte
        if pid is None and b"\n" in said:
            pid, said = int(said), b""
        if pid is not None and moment is not None and seen >= moment:
            os.kill(pid, signal.SIGKILL)
            moment = None
        if said.count(b"\n") == 2:
            return int(said)
    raise AssertionError("the nursery ended")


@pytest.mark.parametrize(
    ("objective", "ema", "updates", "kills", "furthest"),
    [
        (Shortcut(guidance=1.5), EmaConfig(profiles=(0.05, 0.1), profile_every=32 * 4), 60, 14, 300),
        (Reflow(pairs=80, pair_steps=2), EmaConfig(), 24, 14, 200),
    ],
    ids=["one phase and power averages", "phases and pairs"],
)
def test_killed_at_random_moments_a_run_is_the_same(
    small: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objective: Objective,
    ema: EmaConfig,
    updates: int,
    kills: int,
    furthest: int,
) -> None:
    monkeypatch.setattr(pairs, "SHARD", 8)  # as in the nursery
    config = replace(
        small,
        ema=ema,
        objective=objective,
        network=network_for(small, objective),
        training=replace(small.training, images=32 * updates),
        checkpoint=CheckpointConfig(every=32 * 2, keep_last=1, keep_every=32 * updates // 3),
    )
    train(config, tmp_path / "whole")
    (tmp_path / "config.json").write_text(json.dumps(to_json(config)))
    chance = random.Random(1)
    # the first moments fall on a run directory that is being made, the others mostly on a checkpoint being written
    moments = [*sorted(chance.sample(range(1, 14), 4)), *(chance.randint(15, furthest) for _ in range(kills - 4))]
    with nursery(tmp_path / "config.json", tmp_path / "parts") as process:
        reached, made = [], []
        for moment in moments:
            assert life(process, moment) == -signal.SIGKILL
            reached.append(max((step for step, _ in checkpoint.listing(tmp_path / "parts" / "checkpoints")), default=0))
            made.append(len([*(tmp_path / "parts" / "pairs").glob("pairs-*")]))
        states = {*zip(reached, made, strict=True)}
        assert len(states) > kills / 2  # they are spread over the run
        if len(objective.phases()) > 1:  # before the teacher exists, between pairs and the update after it, and later
            assert min(reached) < updates // 2 < max(reached) and {*made} & {*range(1, 10)}, states
        assert life(process, None) == 0
    assert_same(tmp_path / "whole", tmp_path / "parts")
    kept = [sorted(path.name for path in (tmp_path / run / "checkpoints").iterdir()) for run in ("whole", "parts")]
    assert kept[0] == kept[1] == [f"step-{step:08d}" for step in (updates // 3, 2 * updates // 3, updates)]
