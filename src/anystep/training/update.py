"""One update: micro-batches, gradient, non-finite policy, optimizer step, statistics of the loss."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from anystep.core.errors import RunError
from anystep.core.random import preserved_generators
from anystep.flow.penalties import Penalty, Weight
from anystep.flow.penalties.squared import squared_error
from anystep.objectives import Batch, Draw, Losses, Objective, PhaseProgress, Targets
from anystep.run.config import TrainingConfig
from anystep.run.plan import Segment
from anystep.training.examples import Examples
from anystep.training.state import State


class UpdateCharge:
    """What an update charges each row, by penalty and weight, and the sums of their statistics over micro-batches.

    Every micro-batch is charged with ``loss``, the states as the updates before left them; `observe` renews these.
    """

    def __init__(
        self, penalty: Penalty, weight: Weight, loss: nn.ModuleDict, objective: Objective, progress: PhaseProgress
    ) -> None:
        self.penalty, self.weight, self.loss = penalty, weight, loss
        self.objective, self.progress = objective, progress
        self.totals: dict[str, dict[str, Tensor]] = {"penalty": {}, "weight": {}}

    def __call__(self, prediction: Tensor, targets: Targets) -> Losses:
        """Return the loss of each row; the log shows it without the section `weight`."""
        target, query, tag = targets.target, targets.query, targets.tag
        penalties = self.penalty.rows(self.loss["penalty"], prediction, target, query, self.objective.error)
        if targets.weight is not None:
            penalties = penalties * targets.weight
        guess = prediction.detach()
        raw = squared_error(guess, target)
        rows = self.weight.rows(self.loss["weight"], penalties, raw, tag, self.progress)
        with torch.no_grad():
            self._add("penalty", self.penalty.statistics(self.loss["penalty"], guess, target))
            self._add("weight", self.weight.statistics(self.loss["weight"], raw, tag))
        return Losses(rows, query.t, tag, logged=penalties.detach())

    def observe(self) -> None:
        """Take the statistics of the update, which was applied, into the states."""
        self.penalty.observe(self.loss["penalty"], self.totals["penalty"])
        self.weight.observe(self.loss["weight"], self.totals["weight"])

    def _add(self, part: str, statistics: dict[str, Tensor]) -> None:
        totals = self.totals[part]
        for name, value in statistics.items():
            totals[name] = totals.get(name, torch.zeros((), dtype=torch.float64)) + value.cpu().double()


def update(state: State, examples: Examples, index: NDArray[np.int64], segment: Segment) -> None:
    """Make one update on the global batch of these rows; one whose loss or gradient is not finite is skipped."""
    config, settings = state.config, state.config.training
    objective, progress = segment.phase.objective, segment.progress(state.step)
    charge = UpdateCharge(config.penalty, config.weight, state.loss, objective, progress)
    rows = examples.read(index)
    losses: list[Losses] = []
    for batch, draw in micro_batches(state, examples, rows, index):
        with state.autocast():
            part = objective.loss(state.networks, batch, draw, progress, charge)
        (part.rows.sum() / settings.batch).backward()  # type: ignore[no-untyped-call]
        losses.append(part)
    norm = get_total_norm([p.grad for p in state.network.parameters() if p.grad is not None])
    learned = [p.grad for p in state.loss.parameters() if p.grad is not None]
    if all(bool(torch.isfinite(each).all()) for each in (norm, *learned, *(part.rows for part in losses))):
        if config.optimizer.clip_norm is not None:
            clip_grads_with_norm_(state.network.parameters(), config.optimizer.clip_norm, norm)
        state.apply(segment.learning_rate(state.step, config.optimizer, settings.batch))
        charge.observe()
        state.meter.add(losses, float(norm))
        state.skipped_in_a_row = 0
    else:
        state.skipped += 1
        state.skipped_in_a_row += 1
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    if state.skipped_in_a_row >= settings.max_nonfinite:
        raise RunError(
            f"stopped at step {state.step}: loss or gradient not finite in {state.skipped_in_a_row} updates in a row; "
            "checkpoints saved before are good. Try a lower optimizer.lr, optimizer.clip_norm 1, or precision float32"
        )


def micro_batches(
    state: State, examples: Examples, rows: Any, index: NDArray[np.int64]
) -> Iterator[tuple[Batch, Draw]]:
    """Yield the parts that the global batch is computed in, each with its own rows of the update's draws."""
    settings: TrainingConfig = state.config.training
    size = settings.batch // settings.accumulate
    with preserved_generators(state.device):
        for first in range(0, settings.batch, size):
            draw = Draw(state.keys, state.step, settings.batch, slice(first, first + size), state.device)
            batch = examples.batch(rows, index, draw)
            draw.seed_network()
            yield batch, draw
