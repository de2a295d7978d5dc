"""A trained network, ready to draw from. Sample i is a function of (seed, i), whatever else is asked for beside it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anystep.codecs import Codec, encode_condition
from anystep.core.errors import RunError, UsageError
from anystep.core.random import KEY_VERSION, Keys
from anystep.flow.condition import UNCONDITIONAL, Condition, ConditionSpec, fill_missing, to
from anystep.flow.condition import rows as some
from anystep.flow.guidance import guidance_scales
from anystep.flow.ladder import Schedule
from anystep.flow.network import Network, takes_guidance
from anystep.flow.sampling import Callback
from anystep.objectives.base import Objective

ProgressCallback = Callable[[int, int], None]
Labels = int | Sequence[int] | NDArray[np.int64] | Tensor


@dataclass(frozen=True)
class Plan:
    """How a budget is sampled: the steps, the guidance scale of each, and what a person should know of it.

    ``takes_guidance``: whether the scale is an input of the network.
    """

    schedule: Schedule
    guidance: Sequence[float]
    caution: str | None = None
    takes_guidance: bool = False

    @property
    def network_calls(self) -> int:
        """Forward passes a sample: a guided step costs two (label and null) unless W is an input of the network.

        W = 1 and W = 0 cost one.
        """
        return sum(1 if self.takes_guidance or scale in {0, 1} else 2 for scale in self.guidance)


@dataclass(frozen=True)
class Generator:
    """A trained network (put in evaluation mode here) with all that turns noise into examples.

    ``shape`` is the model's, [C, H, W] or [D]; ``conditions`` says what an example is given; ``source`` names
    the run and ``ema`` the weights ("0.999", "none"), both for the record only; ``caution`` is what a person should
    know of the weights, whatever the budget; ``key_version`` is that of the run's random keys (`core.random.Keys`).
    ``condition_codecs`` normalise features, by entry. ``usual(index)`` is the condition of samples that are given none,
    in the data's unit (None: see `usual_condition`).
    """

    network: Network
    objective: Objective
    codec: Codec
    shape: tuple[int, ...]
    conditions: ConditionSpec = UNCONDITIONAL
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    source: str = ""
    ema: str = "none"
    caution: str | None = None
    key_version: int = KEY_VERSION
    condition_codecs: Mapping[str, Codec] = field(default_factory=dict)
    usual: Callable[[Sequence[int]], Condition] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.network, nn.Module):
            self.network.eval()

    def noise(self, seed: int, index: Sequence[int]) -> Tensor:
        """Return standard normal noise [n, *shape], float32 on the CPU; row i depends on (seed, index[i]) alone."""
        return self._normal(seed, index, "sample")

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None without class labels."""
        return self.conditions.num_classes

    def usual_condition(self, index: Sequence[int]) -> Condition:
        """Return what samples are given by default: `usual`; else class labels take turns, features are left out.

        None for an unconditional network. Raises UsageError for features that the model was never trained without.
        """
        if self.usual is not None:
            return self.usual(index)
        named = self.conditions.named(self.conditions.nothing(len(index)))
        if self.conditions.label is not None and self.num_classes is not None:
            named[self.conditions.label] = torch.as_tensor(np.asarray(index, dtype=np.int64)) % self.num_classes
        return self.conditions.of(named)

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
        if not self.conditions and guidance not in {None, 1}:
            raise UsageError(f"guidance {guidance:g} needs classes, and this model is unconditional: leave it out")
        if guidance not in {None, 1} and self.conditions and not any(e.drop for e in self.conditions.entries.values()):
            raise UsageError(f"guidance {guidance:g} needs a condition that training leaves out at times: data.drop")
        chosen = list(steps) if isinstance(steps, Sequence) else (schedule or self.objective.schedule)(steps)
        if not self.conditions:
            return Plan(chosen, [1.0] * len(chosen), self.objective.caution(chosen, None))
        scales, warnings = guidance_scales([self.objective.guidance_rule(step) for step in chosen], guidance, twice)
        cautions = [self.objective.caution(chosen, guidance), *warnings]
        return Plan(chosen, scales, "; ".join(filter(None, cautions)) or None, takes_guidance(self.network))

    def generate(
        self,
        *,
        steps: int | Schedule,
        num: int = 16,
        seed: int = 0,
        index: Sequence[int] | None = None,
        condition: Condition | Labels = None,
        guidance: float | None = None,
        twice: bool = False,
        schedule: Callable[[int], Schedule] | None = None,
        batch: int = 256,
        callback: Callback | None = None,
        progress: ProgressCallback | None = None,
    ) -> Tensor:
        """Draw the samples numbered ``index``, by default 0 ... ``num`` - 1: `noise` of (seed, index) carried to data.

        ``condition`` None is `usual_condition`. The rest as in `plan` and `draw`, errors too.
        """
        index = range(num) if index is None else index
        return self.draw(
            self.noise(seed, index),
            self.plan(steps, guidance=guidance, twice=twice, schedule=schedule),
            condition=self.usual_condition(index) if condition is None else condition,
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
        condition: Condition | Labels = None,
        seed: int = 0,
        index: Sequence[int] | None = None,
        batch: int = 256,
        callback: Callback | None = None,
        progress: ProgressCallback | None = None,
    ) -> Tensor:
        """Carry ``noise`` [n, *shape] to data, ``batch`` rows at a time; returns x float32 [n, *shape] on the CPU.

        ``condition``: see `anystep.flow.condition`; for class labels one class for all rows or one per row will do;
        features [n, ...] are in the data's unit, numbers of any type. A conditional network without it gets "nothing
        given".
        ``seed`` and ``index`` (None: 0, 1, ...), one number a row, key the fresh noise that stochastic methods take on
        the way; rows with the same number have the same. Other methods do not look at them.
        ``callback(n, step, x)`` sees each batch in turn after each step; ``progress(done, total)`` counts samples.
        Deterministic: the arguments decide all; only the rounding of a matrix product may differ between batch sizes.
        Raises UsageError for a batch below 1, a condition that does not fit or of an unconditional network, and another
        count of numbers than of noises.
        """
        if batch < 1:
            raise UsageError(f"batch must be at least 1, got {batch}")
        given = self._condition(condition, len(noise))
        numbers = list(range(len(noise)) if index is None else index)
        if len(numbers) != len(noise):
            raise UsageError(f"index must have one number a row, {len(noise)} of them, got {len(numbers)}")
        done = []
        for start in range(0, len(noise), batch):
            rows = slice(start, start + batch)
            x = self.objective.sample(
                self.network,
                noise[rows].to(self.device),
                steps=plan.schedule,
                condition=to(some(given, rows), self.device),
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

        Raises RunError as `check_decodable` does.
        """
        self.check_decodable()
        return self.codec.decode(x).cpu().numpy()

    def check_decodable(self) -> None:
        """Raise RunError when the codec lacks something here that decoding needs."""
        if lack := self.codec.lacks():
            raise RunError(f"samples of {self.source or 'this model'} cannot be decoded: {lack}")

    def _normal(self, seed: int, index: Sequence[int], stream: str) -> Tensor:
        """Return standard normal noise [n, *shape], float32 on the CPU: a key of its own for each row."""
        keys = Keys(seed, self.key_version)
        rows = [keys.normal(int(i), stream, self.shape) for i in index]
        return torch.stack(rows) if rows else torch.empty(0, *self.shape)

    def _fresh(self, seed: int, index: Sequence[int], n: int) -> Tensor:
        """Return the fresh noise of step n, where the network is."""
        return self._normal(seed, index, f"renoise/{n}").to(self.device)

    def _condition(self, condition: Condition | Labels, length: int) -> Condition:
        """Return the condition of ``length`` samples, checked, on the CPU; None: nothing given."""
        if condition is None:
            return self.conditions.nothing(length)
        if not self.conditions:
            raise UsageError("a condition was given, but this model is unconditional: leave it out")
        raw: Any = condition if isinstance(condition, Mapping) else torch.as_tensor(condition)
        if isinstance(raw, Tensor) and raw.ndim == 0:
            raw = raw.expand(length)
        named = self.conditions.named(raw)
        for name, entry in self.conditions.entries.items():
            values = torch.as_tensor(named[name]).cpu()
            if entry.kind == "label":
                named[name] = values
                continue
            named[name] = fill_missing(values.float())
            if not entry.drop and named[name].isnan().any():
                raise UsageError(f"{name} must be given, got NaN: this model was never trained without it")
            if named[name].isinf().any():
                raise UsageError(f"{name} must be finite, or NaN for nothing given")
        given = self.conditions.of(named)
        label = self.conditions.class_label(given)
        if label is not None and self.num_classes is not None:
            wrong = label[(label < 0) | (label >= self.num_classes)]
            if len(wrong):
                raise UsageError(f"{self.conditions.label} must be in 0..{self.num_classes - 1}, got {int(wrong[0])}")
        self.conditions.check(given, length)
        return encode_condition(self.condition_codecs, self.conditions, given)
