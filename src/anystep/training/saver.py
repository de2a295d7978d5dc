"""What a run saves while it trains: checkpoints, copies of power averages, previews."""

import time
from collections.abc import Sequence
from pathlib import Path

from anystep.run import checkpoint
from anystep.run.log import RunLog
from anystep.run.plan import Segment
from anystep.training.preview import Previews
from anystep.training.signals import StopRequest
from anystep.training.state import State

#: seconds until the first checkpoint by the clock
FIRST = 60.0


class Saver:
    """Saves a run's state at the configured images, at the ends of phases, by the clock, and when it stops."""

    def __init__(self, state: State, segments: Sequence[Segment], out: Path, previews: Previews) -> None:
        self.state, self.out, self.previews = state, out, previews
        self.ends = {segment.last for segment in segments}
        self.minutes = state.config.checkpoint.minutes
        self.due = time.monotonic() + min(FIRST, 60 * (self.minutes or FIRST))

    def after_update(self, segment: Segment, log: RunLog, stopping: bool, stop: StopRequest) -> None:
        """Save what is due after an update. ``stop`` ends a preview early. Raises RunError."""
        state, config = self.state, self.state.config
        copies = config.ema.profile_every or config.checkpoint.every
        if config.ema.profiles and segment.last == max(self.ends) and self.every(copies) and state.updates:
            # before the checkpoint of this update: a run that is killed between the two stores them again
            checkpoint.save(self.out / "profiles", state.step, state.profiles())
        by_clock = self.minutes is not None and time.monotonic() >= self.due
        if not (stopping or by_clock or self.scheduled(state.step)):
            return
        checkpoints, batch = self.out / "checkpoints", config.training.batch
        checkpoint.save(checkpoints, state.step, state.snapshot(log.sync()))
        checkpoint.prune(checkpoints, config.checkpoint, batch, self.scheduled, max(self.ends))
        self.due = time.monotonic() + 60 * (self.minutes or 0)
        if not stopping:
            self.previews.draw(segment.phase.objective, stop)

    def scheduled(self, step: int) -> bool:
        """Return whether every run of this config has a checkpoint at this step."""
        return step in self.ends or self.every(self.state.config.checkpoint.every, step)

    def every(self, images: int, step: int | None = None) -> bool:
        """Return whether a step, by default the present one, is a multiple of so many images, in whole updates."""
        step = self.state.step if step is None else step
        return step % max(1, images // self.state.config.training.batch) == 0
