"""What a person sees while a run trains, or samples are drawn."""

import os
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from anystep.training.config import Config
from anystep.training.trainer import Record

STOPPING = "stopping after this update; once more stops now"


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

    def stopping(self) -> None:
        """Say that a signal was heard; called in its handler, where `print` might find its own buffer half-way."""
        if self.watched:
            self.screen.renderables.append(Text(STOPPING))
        else:
            with suppress(OSError):
                os.write(2, f"{STOPPING}\n".encode())


def losses(record: dict[str, Any]) -> str:
    """Return a record's losses in one line: flow rows, then each self-consistency level by its step d."""
    parts = [
        f"{tag if tag == 'flow' else f'd={tag}'} {value:.4f}"
        for tag, value in record["loss_by_level"].items()
        if value is not None
    ]
    skipped = f"  skipped {record['skipped']}" if record["skipped"] else ""
    return "loss  " + "  ".join(parts) + skipped
