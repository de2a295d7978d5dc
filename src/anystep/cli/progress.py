"""Progress of training and scoring on standard error: bars in a terminal, else plain lines."""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from rich import progress
from rich.console import Console, RenderableType
from rich.text import Text

from anystep.comparison.trials import Trial, TrialEvent
from anystep.report.curves import kind_name
from anystep.run.config import Config
from anystep.training.trainer import Record

STOPPING = "stopping after this update; once more stops now"
#: what a run of a comparison does, and what it counts
DOING = {"train": ("training", "images"), "score": ("scoring", "network calls")}
#: columns of a terminal below which only what is done and the time left are shown
NARROW = 72
#: seconds between lines about a run's losses in a comparison
QUIET = 30.0


class RunProgress(progress.Progress):
    """A bar per run with the time left, and text below them; neither where standard error is no terminal."""

    def __init__(self, *columns: progress.ProgressColumn, transient: bool = False) -> None:
        self.below: dict[str, str] = {}
        console = Console(stderr=True)
        left = progress.TextColumn("left"), progress.TimeRemainingColumn()
        bar = [*columns, progress.BarColumn(bar_width=None), progress.TimeElapsedColumn(), *left]
        if console.width < NARROW:
            bar = [columns[0], left[0], progress.TimeRemainingColumn(compact=True)]
        super().__init__(*bar, console=console, expand=True, transient=transient, disable=not console.is_terminal)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the bars and the text."""
        yield from super().get_renderables()
        for text in list(self.below.values()):  # a signal may add one meanwhile
            yield Text(text, style="dim")

    def say(self, text: str) -> None:
        """Print a line, above the bars."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stopping(self) -> None:
        """Report a signal. Called in its handler, where `print` could find its own buffer half-written."""
        self.below["stopping"] = STOPPING
        if self.disable:
            with suppress(OSError):
                os.write(2, f"{STOPPING}\n".encode())


class ImagesPerSecond(progress.ProgressColumn):
    """Training examples per second."""

    def render(self, task: progress.Task) -> Text:
        """Return the rate, or a dash before there is one."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} images/s" if speed else "- images/s", style="progress.data.speed")


class TrainingProgress(RunProgress):
    """The progress of one run: images seen, images per second, and the losses."""

    def __init__(self, config: Config) -> None:
        super().__init__(progress.TextColumn("{task.completed:,.0f} / {task.total:,.0f} images"), ImagesPerSecond())
        self.batch, self.total = config.training.batch, config.training.steps * config.training.batch
        self.last: Record = {}
        self.task = self.add_task("train", total=self.total)

    def begin(self, done: int) -> None:
        """Start the clock, after ``done`` updates of earlier."""
        self.reset(self.task, completed=done * self.batch)

    def show(self, step: int, record: Record | None) -> None:
        """Show ``step`` updates as done, and the log record if one was written."""
        self.update(self.task, completed=step * self.batch)
        if record is not None:
            self.last, self.below["losses"] = record, losses(record)
            if self.disable:
                elapsed, left = self.tasks[0].elapsed or 0.0, self.tasks[0].time_remaining
                times = f"{elapsed:.0f} s" + ("" if left is None else f", {left:.0f} s left")
                self.say(f"{step * self.batch:,} / {self.total:,} images  {times}  {losses(record)}")


class ComparisonProgress(RunProgress):
    """The progress of the runs of a comparison that are being trained or scored."""

    def __init__(self) -> None:
        done = progress.TextColumn("{task.completed:,.0f} / {task.total:,.0f}")
        super().__init__(progress.TextColumn("{task.fields[run]}  {task.description}"), done)
        self.bars: dict[str, progress.TaskID] = {}
        self.doing: dict[str, str] = {}
        self.last_said: dict[str, float] = {}

    def show(self, trial: Trial, event: TrialEvent) -> None:
        """Show what a run reports in its bar; print a line when it starts or ends, has text, or was quiet for long."""
        run, lines = trial.run.name, [event.text]
        if self.doing.get(run) != event.doing:
            self.doing[run] = event.doing
            if run in self.bars:
                self.remove_task(self.bars.pop(run))
            if event.doing != "end":
                doing, unit = DOING[event.doing]
                self.bars[run] = self.add_task(doing, total=event.total, run=run)
                lines.insert(0, f"{doing} {event.total:,} {unit}")
        elif event.record is not None and not event.text and time.monotonic() > self.last_said.get(run, 0) + QUIET:
            lines = [f"{event.done:,} / {event.total:,} images  {losses(event.record)}"]
        if run in self.bars:
            self.update(self.bars[run], completed=event.done, total=event.total)
        for line in filter(None, lines):
            self.say(f"{run}: {line}")
            self.last_said[run] = time.monotonic()


def losses(record: dict[str, Any]) -> str:
    """Return a record's losses in one line: of flow matching, then of the other kinds, by step size d."""
    values = {
        kind_name(tag).replace(" ", ""): loss for tag, loss in record["loss_by_level"].items() if loss is not None
    }
    phase = record.get("phase", "train")  # the name of the phase where a run has one only
    line = "loss  " + "  ".join(f"{name} {loss:.4f}" for name, loss in values.items())
    skipped = f"  skipped {record['skipped']}" if record["skipped"] else ""
    return ("" if phase == "train" else f"{phase}  ") + line + skipped
