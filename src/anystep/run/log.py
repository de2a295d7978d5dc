"""The log of a run: `log.jsonl`, which an interruption does not change, and the means that it consists of.

A record holds means over the updates since the last: the loss, by kind of example, by kind and time, and the gradient
norm; with a weight that and the mean squared error, by kind; on request norms and cosines of gradients, by kind. What
depends on the machine (seconds, images/s) goes to `timing.jsonl`.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor

from anystep.core.errors import RunError, reason
from anystep.objectives import Losses

TIME_BINS = 8


class Meter:
    """Means by kind of example and time bin over a window of updates; its state is saved in checkpoints."""

    def __init__(self, tags: Sequence[str]) -> None:
        self.tags = tuple(tags)
        self.clear()

    def clear(self) -> None:
        """Start a new window."""
        self.sums = torch.zeros(len(self.tags) * TIME_BINS, dtype=torch.float64)
        self.counts = torch.zeros_like(self.sums)
        self.updates = 0
        self.grad_norm = 0.0
        #: number of examples, sums of their weights and of their mean squared errors, [3, kinds]; None without a weight
        self.weighed: Tensor | None = None
        #: [sum, number] of what was measured of gradients, by field of the record and kind
        self.gradients: dict[str, dict[str, list[float]]] = {}

    def add(
        self,
        losses: Sequence[Losses],
        grad_norm: float,
        gradients: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    ) -> None:
        """Count the examples of one update; ``gradients``: what was measured of them, by field and kind."""
        for field, measured in gradients.items():
            means = self.gradients.setdefault(field, {})
            for kind, value in measured.items():
                total, number = means.get(kind, (0.0, 0))
                means[kind] = [total + value, number + 1]
        self.updates += 1
        self.grad_norm += grad_norm
        for part in losses:
            rows = (part.rows if part.logged is None else part.logged).detach().cpu().double()
            t, tag = part.t.cpu(), part.tag.cpu()
            cell = tag * TIME_BINS + (t * TIME_BINS).long().clamp(0, TIME_BINS - 1)
            self.sums += torch.bincount(cell, rows, len(self.sums))
            self.counts += torch.bincount(cell, minlength=len(self.sums))
            if part.weight is not None and part.raw is not None:
                values = (torch.ones_like(part.raw), part.weight, part.raw)
                sums = torch.stack([torch.bincount(tag, v.cpu().double(), len(self.tags)) for v in values])
                self.weighed = sums if self.weighed is None else self.weighed + sums

    def record(self) -> dict[str, Any]:
        """Return the window's means: the loss, by kind, by kind and time; the gradient norm. None: no examples."""
        sums, counts = self.sums.reshape(-1, TIME_BINS), self.counts.reshape(-1, TIME_BINS)
        by_level = _means(sums.sum(1), counts.sum(1))
        record: dict[str, Any] = {
            "loss": _means(sums.sum().reshape(1), counts.sum().reshape(1))[0],
            "loss_by_level": dict(zip(self.tags, by_level, strict=True)),
            "loss_by_t": {tag: _means(s, c) for tag, s, c in zip(self.tags, sums, counts, strict=True)},
            "grad_norm": self.grad_norm / self.updates if self.updates else None,
        }
        if self.weighed is not None:
            num, *sums_by_kind = self.weighed
            for field, total in zip(("weight_by_level", "error_by_level"), sums_by_kind, strict=True):
                record[field] = dict(zip(self.tags, _means(total, num), strict=True))
        for field, means in self.gradients.items():
            record[field] = {kind: total / number for kind, (total, number) in means.items()}
        return record

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs to finish the window exactly."""
        cells = {"sums": self.sums.tolist(), "counts": self.counts.tolist()}
        more: dict[str, Any] = {} if self.weighed is None else {"weighed": self.weighed.tolist()}
        if self.gradients:
            more["gradients"] = self.gradients
        return {**cells, **more, "updates": self.updates, "grad_norm": self.grad_norm}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue the window that `state` described. Raises ValueError when it is of other kinds of example."""
        sums, counts = (torch.tensor(state[name], dtype=torch.float64) for name in ("sums", "counts"))
        if not sums.shape == counts.shape == self.sums.shape:
            raise ValueError(f"the log's window has {len(sums)} cells, {len(self.sums)} expected")
        self.sums, self.counts = sums, counts
        self.weighed = torch.tensor(state["weighed"], dtype=torch.float64) if "weighed" in state else None
        self.gradients = state.get("gradients", {})
        self.updates, self.grad_norm = state["updates"], state["grad_norm"]


def _means(sums: Tensor, counts: Tensor) -> list[float | None]:
    return [s / c if c else None for s, c in zip(sums.tolist(), counts.tolist(), strict=True)]


class RunLog:
    """`log.jsonl` and `timing.jsonl` of a run directory, and TensorBoard events on request; closed as a context.

    ``offset`` is the length of `log.jsonl` at the checkpoint: what an interrupted run wrote after it is removed and
    written again. ``board`` is a TensorBoard writer or None. Methods raise RunError when the disk fails.
    """

    def __init__(self, out: Path, offset: int, step: int, board: Any = None) -> None:
        self.path, self.board = out / "log.jsonl", board
        self.started, self.started_step, self.begun = time.monotonic(), step, round(time.time(), 3)
        try:
            self.file = self.path.open("a", encoding="utf-8")
            self.file.truncate(min(offset, self.path.stat().st_size))  # never extended with zeros
            self.timing = (out / "timing.jsonl").open("a", encoding="utf-8")
        except OSError as error:
            raise RunError(f"cannot write the log in {out}: {reason(error)}") from error

    def sync(self) -> int:
        """Flush the log to disk; returns its length in bytes."""
        try:
            os.fsync(self.file.fileno())
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {reason(error)}") from error
        return self.path.stat().st_size

    def write(self, record: dict[str, Any]) -> None:
        """Append one record and flush it."""
        seconds = time.monotonic() - self.started
        images = record["images"] * (1 - self.started_step / record["step"])
        timing = {"begun": self.begun, "step": record["step"], "seconds": round(seconds, 3)}
        timing |= {"images_per_second": round(images / seconds, 1)}
        try:
            for file, line in ((self.file, record), (self.timing, timing)):
                file.write(json.dumps(line) + "\n")
                file.flush()
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {reason(error)}") from error
        if self.board is not None:
            scalars = {f"loss/{k}": v for k, v in record["loss_by_level"].items()}
            scalars |= {k: record[k] for k in ("loss", "grad_norm", "lr", "skipped")}
            by_kind = ("weight_by_level", "error_by_level", "gradient_norm", "gradient_cosine")
            scalars |= {f"{field}/{k}": v for field in by_kind for k, v in record.get(field, {}).items()}
            for name, value in scalars.items():
                if value is not None:
                    self.board.add_scalar(name, value, record["images"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # the last line is the run's whole time, even without a record
            line = {"begun": self.begun, "seconds": round(time.monotonic() - self.started, 3)}
            self.timing.write(json.dumps(line) + "\n")
        for file in (self.file, self.timing):
            with suppress(OSError):  # a line that a full disk did not take was reported before
                file.close()
        if self.board is not None:
            self.board.close()


def summary_writer() -> Callable[..., Any]:
    """Return the class of TensorBoard's writers. Raises RunError with what to install."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RunError("log.tensorboard needs the extra: pip install -e '.[tensorboard]' in the checkout") from error
    return SummaryWriter
