"""One update: micro-batches, gradient, non-finite values, optimizer step, statistics of the loss."""

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from anystep.core.errors import RunError
from anystep.core.random import preserved_generators
from anystep.data import batch_indices
from anystep.flow.penalties.squared import squared_error
from anystep.objectives import Draw, Losses, Targets
from anystep.run.plan import Segment
from anystep.training.examples import Examples
from anystep.training.gradients import KindGradients
from anystep.training.state import State


class UpdateCharge:
    """The loss of each example of an update, by penalty and weight, and the sums of their statistics.

    Every micro-batch is charged with the state of penalty and weight before the update; `observe` changes it.
    """

    def __init__(self, state: State, segment: Segment) -> None:
        self.penalty, self.weight, self.loss = state.config.penalty, state.config.weight, state.loss
        self.objective, self.progress = segment.phase.objective, segment.progress(state.step)
        self.totals: dict[str, dict[str, Tensor]] = {"penalty": {}, "weight": {}}

    def __call__(self, prediction: Tensor, targets: Targets) -> Losses:
        """Return the loss of each example; the log shows it without the section `weight`, and that by itself."""
        target, query, tag = targets.target, targets.query, targets.tag
        penalties = self.penalty.rows(self.loss["penalty"], prediction, target, query, self.objective.error)
        if targets.weight is not None:
            penalties = penalties * targets.weight
        detached = prediction.detach()
        raw = squared_error(detached, target)
        rows = self.weight.rows(self.loss["weight"], penalties, raw, query, tag, self.progress)
        with torch.no_grad():
            factor = self.weight.factor(self.loss["weight"], raw, query, tag, self.progress)
            statistics = {
                "penalty": self.penalty.statistics(self.loss["penalty"], detached, target),
                "weight": self.weight.statistics(self.loss["weight"], raw, query, tag),
            }
        for part, totals in self.totals.items():
            for name, value in statistics[part].items():
                totals[name] = totals.get(name, torch.zeros((), dtype=torch.float64)) + value.cpu().double()
        return Losses(rows, query.t, tag, penalties.detach(), factor, raw)

    def observe(self) -> None:
        """Update the states of penalty and weight by the statistics of the update."""
        self.penalty.observe(self.loss["penalty"], self.totals["penalty"])
        self.weight.observe(self.loss["weight"], self.totals["weight"])


def update(state: State, examples: Examples, segment: Segment) -> None:
    """Make one update of a phase; one whose loss or gradient is not finite is skipped."""
    config, settings, objective = state.config, state.config.training, segment.phase.objective
    charge, losses = UpdateCharge(state, segment), list[Losses]()
    index = batch_indices(len(examples), settings.batch, state.step, state.keys)
    size = settings.batch // settings.accumulate
    every = config.log.gradients and max(1, config.log.gradients // settings.batch)
    kinds = KindGradients(state.network, config.objective) if every and state.step % every == 0 else None
    with preserved_generators(state.device):
        for first in range(0, settings.batch, size):
            draw = Draw(state.keys, state.step, settings.batch, slice(first, first + size), state.device)
            batch = examples.batch(index, draw)
            draw.seed_network()
            with state.autocast():
                part = objective.loss(state.networks, batch, draw, charge.progress, charge)
            if kinds is not None:
                kinds.add(part, settings.batch)
            (part.rows.sum() / settings.batch).backward()  # type: ignore[no-untyped-call]
            losses.append(part)
    norm = get_total_norm([p.grad for p in state.network.parameters() if p.grad is not None])
    learned = [p.grad for p in state.loss.parameters() if p.grad is not None]
    if all(bool(torch.isfinite(each).all()) for each in (norm, *learned, *(part.rows for part in losses))):
        if config.optimizer.clip_norm is not None:
            clip_grads_with_norm_(state.network.parameters(), config.optimizer.clip_norm, norm)
        state.apply(segment.learning_rate(state.step, config.optimizer, settings.batch))
        charge.observe()
        state.meter.add(losses, float(norm), {} if kinds is None else kinds.compare())
        state.skipped_in_a_row = 0
    else:
        state.skipped += 1
        state.skipped_in_a_row += 1
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    if state.skipped_in_a_row >= settings.max_nonfinite:
        raise RunError(
            f"stopped at step {state.step}: loss or gradient not finite in {state.skipped_in_a_row} updates in a row; "
            "earlier checkpoints are intact. Try a lower optimizer.lr, optimizer.clip_norm 1, or precision float32"
        )
