"""What a person sees while a run trains, or samples are drawn."""

import os
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from anystep.comparison.trials import Trial, TrialEvent
from anystep.report.curves import kind_name
from anystep.run.config import Config
from anystep.training.trainer import Record

STOPPING = "stopping after this update; once more stops now"
#: the phase of a run that has one
ONLY = "train"
#: what a run of a comparison is at
DOING = {"train": "training", "score": "scoring"}
#: seconds between lines about a run's losses
QUIET = 30.0


class ImagesPerSecond(ProgressColumn):
    """Training examples a second."""

    def render(self, task: Task) -> Text:
        """Return the rate, or a dash before there is one."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} images/s" if speed else "- images/s", style="progress.data.speed")


class TrainingProgress:
    """A bar with images seen, images/s, time left, and the losses; plain lines where nobody watches."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.console = Console(stderr=True)
        self.last: Record = {}
        self.started = time.monotonic()
        self.bar = Progress(
            TextColumn("{task.completed:,.0f} / {task.total:,.0f} images"),
            BarColumn(bar_width=None),
            ImagesPerSecond(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            expand=True,
        )
        self.losses = Text("", style="dim")
        self.screen = Group(self.bar, self.losses)
        self.live = Live(self.screen, console=self.console, refresh_per_second=4)
        self.watched = sys.stderr.isatty()
        self.total = config.training.steps * config.training.batch
        self.task = self.bar.add_task("train", total=self.total)

    def __enter__(self) -> "TrainingProgress":
        if self.watched:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.watched:
            self.live.stop()

    def show(self, step: int, record: Record | None) -> None:
        """Take note of an update, and of the log record where one was written."""
        images = step * self.config.training.batch
        if record is not None:
            self.last = record
            self.losses.plain = losses(record)
            if not self.watched:
                elapsed = time.monotonic() - self.started
                print(f"{images:,} / {self.total:,} images  {elapsed:.0f} s  {losses(record)}", file=sys.stderr)
        self.bar.update(self.task, completed=images)

    def say(self, text: str) -> None:
        """Print a line above the bar: a phase that begins, pairs that were made."""
        if self.watched:
            self.console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr)

    def stopping(self) -> None:
        """Say that a signal was heard; called in its handler, where `print` might find its own buffer half-way."""
        if self.watched:
            self.screen.renderables.append(Text(STOPPING))
        else:
            with suppress(OSError):
                os.write(2, f"{STOPPING}\n".encode())


class ComparisonProgress:
    """A bar for each run that is trained or scored; a few lines a run where nobody watches."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.fields[run]}  {task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,.0f} / {task.total:,.0f}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            expand=True,
        )
        self.watched = sys.stderr.isatty()
        self.tasks: dict[str, TaskID] = {}
        self.doing: dict[str, str] = {}
        self.said: dict[str, float] = {}

    def __enter__(self) -> "ComparisonProgress":
        if self.watched:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.watched:
            self.bar.stop()

    def show(self, trial: Trial, news: TrialEvent) -> None:
        """Take note of what a run tells; a signal's own line is left to `stopping`."""
        run = trial.run.name
        text = news.text
        if self.doing.get(run) != news.doing and news.doing != "end":
            self.doing[run] = news.doing
            self._restart(run, news)
            self._say(
                run, f"{DOING[news.doing]} {news.total:,} {'images' if news.doing == 'train' else 'network calls'}"
            )
        elif news.record is not None and time.monotonic() > self.said.get(run, 0) + QUIET:
            text = text or f"{news.done:,} / {news.total:,} images  {losses(news.record)}"
        if news.doing == "end":
            self._drop(run)
        elif run in self.tasks:
            self.bar.update(self.tasks[run], completed=news.done, total=news.total)
        if text:
            self._say(run, text)

    def stopping(self) -> None:
        """Say that a signal was heard; called in its handler, where no lock may be taken."""
        with suppress(OSError):
            os.write(2, f"\n{STOPPING}\n".encode())

    def _restart(self, run: str, news: TrialEvent) -> None:
        self._drop(run)
        self.tasks[run] = self.bar.add_task(DOING[news.doing], total=news.total, run=run)

    def _drop(self, run: str) -> None:
        if run in self.tasks:
            self.bar.remove_task(self.tasks.pop(run))

    def _say(self, run: str, text: str) -> None:
        self.said[run] = time.monotonic()
        line = f"{run}: {text}"
        if self.watched:
            self.bar.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)


def losses(record: dict[str, Any]) -> str:
    """Return a record's losses in one line: flow rows, then the other kinds, levels by their step d."""
    parts = [
        f"{kind_name(tag).replace(' ', '')} {value:.4f}"
        for tag, value in record["loss_by_level"].items()
        if value is not None
    ]
    phase = record.get("phase", ONLY)
    skipped = f"  skipped {record['skipped']}" if record["skipped"] else ""
    return ("" if phase == ONLY else f"{phase}  ") + "loss  " + "  ".join(parts) + skipped
