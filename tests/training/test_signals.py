"""Ctrl-C: the command line says that it was heard, a library says nothing."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anystep.cli.main import main
from anystep.cli.progress import TrainingProgress
from anystep.run.config import Config
from anystep.training import trainer
from anystep.training.signals import stop_on_signal

LINE = "stopping after this update; once more stops now"


@pytest.fixture(autouse=True)
def hears_ctrl_c() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, as in a terminal: a shell's background jobs begin with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_library_is_silent_and_the_second_signal_acts_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    with stop_on_signal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert capfd.readouterr() == ("", "")


def test_the_command_line_says_that_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    update = trainer.update

    def interrupted(state: Any, *rest: Any) -> None:
        if state.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        update(state, *rest)

    monkeypatch.setattr(trainer, "update", interrupted)
    run = tmp_path / "run"
    words = f"train eight_gaussians-shortcut --batch 32 --images 320 --network.hidden 16 --device cpu --out {run}"
    assert main(words.split()) == 130
    told = capfd.readouterr().err
    lines = [line for line in told.splitlines() if "stop" in line]
    assert lines == [LINE, "stopped at step 2 of 10; a checkpoint is saved"]
    assert f"resume with: anystep train {run} --resume" in told
    monkeypatch.undo()
    assert main(["train", str(run), "--resume"]) == 0


def test_it_is_said_below_the_bar_in_a_terminal(small: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    progress = TrainingProgress(small)
    progress.stopping()
    with progress.console.capture() as shown:
        progress.console.print(progress.get_renderable())
    assert LINE in shown.get().splitlines()[-1]
