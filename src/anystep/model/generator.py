"""A trained network, ready to draw from. Sample i is a function of (seed, i), whatever else is asked for beside it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anystep.codecs import Codec
from anystep.core.errors import RunError
from anystep.core.random import generator
from anystep.flow.ladder import Schedule
from anystep.flow.network import Network, takes_guidance
from anystep.flow.sampling import Callback
from anystep.objectives.base import Objective

Progress = Callable[[int, int], None]
Labels = int | Sequence[int] | NDArray[np.int64] | Tensor


@dataclass(frozen=True)
class Plan:
    """How a budget is sampled: the steps, the guidance scale of each, and what a person should know of it.

    ``told`` says that the network takes the scale as an input.
    """

    schedule: Schedule
    guidance: Sequence[float]
    caution: str | None = None
    told: bool = False

    @property
    def network_calls(self) -> int:
        """Forward passes a sample: a guided step costs two (label and null) unless the network is told W.

        W = 1 and W = 0 cost one.
        """
        return sum(1 if self.told or scale in {0, 1} else 2 for scale in self.guidance)


@dataclass(frozen=True)
class Generator:
    """A trained network (put in evaluation mode here) with all that turns noise into examples.

    ``shape`` is the model's, [C, H, W] or [D]; ``num_classes`` is None for an unconditional network; ``source`` names
    the run and ``ema`` the weights ("0.999", "none"), both for the record only; ``caution`` is what a person should
    know of the weights, whatever the budget.
    """

    network: Network
    objective: Objective
    codec: Codec
    shape: tuple[int, ...]
    num_classes: int | None = None
    class_names: Sequence[str] | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    source: str = ""
    ema: str = "none"
    caution: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.network, nn.Module):
            self.network.eval()

    def noise(self, seed: int, index: Sequence[int]) -> Tensor:
        """Return standard normal noise [n, *shape], float32 on the CPU; row i depends on (seed, index[i]) alone."""
        return self._normal(seed, index, "sample")

    def labels(self, index: Sequence[int]) -> Tensor | None:
        """Return balanced class labels, ``index mod num_classes``, int64 [n]; None for an unconditional network."""
        if self.num_classes is None:
            return None
        return torch.as_tensor(np.asarray(index, dtype=np.int64)) % self.num_classes

    def plan(
        self,
        steps: int | Schedule,
        *,
        guidance: float | None = None,
        twice: bool = False,
        schedule: Callable[[int], Schedule] | None = None,
    ) -> Plan:
        """Return how `draw` carries noise to data.

        ``steps`` is a budget, turned into steps by ``schedule`` (None: the objective's own), or the explicit steps.
        ``guidance`` is the scale W, 1 for none, None "as trained".
        Raises ValueError for a budget below 1, guidance (other than 1) of an unconditional network, and guidance of a
        step that was trained with guidance unless ``twice``.
        """
        if self.num_classes is None and guidance not in {None, 1}:
            raise ValueError(f"guidance {guidance:g} needs classes, and this model is unconditional: leave it out")
        chosen = list(steps) if isinstance(steps, Sequence) else (schedule or self.objective.schedule)(steps)
        if self.num_classes is None:
            return Plan(chosen, [1.0] * len(chosen), self.objective.caution(chosen, None))
        scales = self.objective.step_guidance(chosen, guidance, twice)
        return Plan(chosen, scales, self.objective.caution(chosen, guidance), takes_guidance(self.network))

    def generate(
        self,
        *,
        steps: int | Schedule,
        seed: int,
        index: Sequence[int],
        label: Labels | None = None,
        guidance: float | None = None,
        twice: bool = False,
        schedule: Callable[[int], Schedule] | None = None,
        batch: int = 256,
        callback: Callback | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Draw the samples numbered ``index``: `noise` of (seed, index) carried to data by `draw`.

        ``label`` None gives balanced labels. The rest as in `plan` and `draw`, errors too.
        """
        return self.draw(
            self.noise(seed, index),
            self.plan(steps, guidance=guidance, twice=twice, schedule=schedule),
            label=self.labels(index) if label is None else label,
            seed=seed,
            index=index,
            batch=batch,
            callback=callback,
            progress=progress,
        )

    def draw(
        self,
        noise: Tensor,
        plan: Plan,
        *,
        label: Labels | None = None,
        seed: int = 0,
        index: Sequence[int] | None = None,
        batch: int = 256,
        callback: Callback | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Carry ``noise`` [n, *shape] to data, ``batch`` rows at a time; returns x float32 [n, *shape] on the CPU.

        ``label`` is one class for all rows or one a row; a conditional network without it makes class "none".
        ``seed`` and ``index`` (None: 0, 1, ...), one number a row, key the fresh noise that stochastic methods take on
        the way; rows with the same number have the same. Other methods do not look at them.
        ``callback(n, step, x)`` sees each batch in turn after each step; ``progress(done, total)`` counts samples.
        Deterministic: the arguments decide all; only the rounding of a matrix product may differ between batch sizes.
        Raises ValueError for a batch below 1, labels out of range, labels or numbers of another count than the noise,
        and labels of an unconditional network.
        """
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        labels = self._check(label, len(noise))
        numbers = list(range(len(noise)) if index is None else index)
        if len(numbers) != len(noise):
            raise ValueError(f"index must have one number a row, {len(noise)} of them, got {len(numbers)}")
        done = []
        for start in range(0, len(noise), batch):
            rows = slice(start, start + batch)
            x = self.objective.sample(
                self.network,
                noise[rows].to(self.device),
                steps=plan.schedule,
                label=None if labels is None else labels[rows].to(self.device),
                guidance=plan.guidance,
                callback=callback,
                renoise=partial(self._fresh, seed, numbers[rows]),
            )
            done.append(x.float().cpu())
            if progress is not None:
                progress(min(start + batch, len(noise)), len(noise))
        return torch.cat(done) if done else noise.clone()

    def decode(self, x: Tensor) -> NDArray[np.generic]:
        """Return examples from model space as the codec has them: pictures uint8 [n, H, W, C], vectors float32 [n, D].

        Raises RunError when the codec lacks something here that it needs.
        """
        if lack := self.codec.lacks():
            raise RunError(f"samples of {self.source or 'this model'} cannot be decoded: {lack}")
        return self.codec.decode(x).cpu().numpy()

    def _normal(self, seed: int, index: Sequence[int], stream: str) -> Tensor:
        """Return standard normal noise [n, *shape], float32 on the CPU: a generator of its own for each row."""
        rows = [torch.randn(self.shape, generator=generator(seed, int(i), stream)) for i in index]
        return torch.stack(rows) if rows else torch.empty(0, *self.shape)

    def _fresh(self, seed: int, index: Sequence[int], n: int) -> Tensor:
        """Return the fresh noise of step n, where the network is."""
        return self._normal(seed, index, f"renoise/{n}").to(self.device)

    def _check(self, label: Labels | None, rows: int) -> Tensor | None:
        """Return int64 [rows] within range, or None; no labels on a conditional network: the null label."""
        if self.num_classes is None:
            if label is not None:
                raise ValueError("label was given, but this model is unconditional: leave it out")
            return None
        if label is None:
            return torch.full((rows,), self.num_classes)
        labels = torch.as_tensor(label, dtype=torch.int64).cpu()
        if labels.ndim == 0:
            labels = labels.expand(rows)
        if labels.shape != (rows,):
            raise ValueError(f"label must be one class or {rows} of them, got {tuple(labels.shape)}")
        wrong = labels[(labels < 0) | (labels >= self.num_classes)]
        if len(wrong):
            raise ValueError(f"label must be in 0..{self.num_classes - 1}, got {int(wrong[0])}")
        return labels
