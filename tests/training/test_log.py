"""What the log says is what happened."""

import json
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from anystep.objectives import Losses, Shortcut
from anystep.run.config import Config, LogConfig
from anystep.run.log import TIME_BINS
from anystep.training.trainer import train


@dataclass(frozen=True)
class Noted(Shortcut):
    """A shortcut model that keeps every row's (step, tag, t, loss)."""

    seen: ClassVar[list[tuple[int, str, float, float]]] = []

    def loss(self, networks, batch, draw, progress, charge=None) -> Losses:
        losses = super().loss(networks, batch, draw, progress, charge)
        for tag, t, row in zip(losses.tag.tolist(), losses.t.tolist(), losses.rows.tolist(), strict=True):
            self.seen.append((progress.step, self.tags[tag], t, row))
        return losses


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def test_records_are_means_over_their_window_by_kind_of_row_and_time(
    small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Noted, "seen", [])
    config = replace(small, objective=Noted(share=0.5))
    train(replace(config, training=replace(config.training, images=32 * 7, accumulate=2)), tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [(record["step"], record["images"]) for record in records] == [
        *((1, 32), (2, 64)),  # the first are close
        *((3, 96), (6, 192), (7, 224)),
    ]
    windows = (range(1), range(1, 2), range(2, 3), range(3, 6), range(6, 7))
    for record, window in zip(records, windows, strict=True):
        rows = [row for row in Noted.seen if row[0] in window]
        assert record["loss"] == pytest.approx(mean([loss for *_, loss in rows]))
        cells = defaultdict(list)
        for _, tag, t, loss in rows:
            cells[tag].append(loss)
            cells[tag, int(t * TIME_BINS)].append(loss)
        assert record["loss_by_level"] == pytest.approx({tag: mean(cells[tag]) for tag in Noted().tags})
        for tag in Noted().tags:
            expected = [mean(cells[tag, n]) for n in range(TIME_BINS)]
            assert record["loss_by_t"][tag] == pytest.approx(expected)
    assert records[0]["loss_by_t"]["1"][1:] == [None] * (TIME_BINS - 1)  # a step of 1 begins at t = 0 only


def test_tensorboard_has_the_logs_numbers_across_a_resume(small: Config, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config, run = replace(small, log=LogConfig(every=32 * 3, tensorboard=True)), tmp_path / "run"
    train(replace(config, training=replace(config.training, images=32 * 12)), run)
    train(config, run, resume=True)
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    for name, value in (("loss", lambda r: r["loss"]), ("loss/1/64", lambda r: r["loss_by_level"]["1/64"])):
        events = {event.step: event.value for event in board.Scalars(name)}
        assert events == pytest.approx({record["images"]: value(record) for record in records}, rel=1e-6)
