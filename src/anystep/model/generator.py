"""A trained network that is ready to sample from. Sample i is a function of (seed, i), whatever else is generated."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from anystep.codecs import Codec, encode_condition
from anystep.core.errors import RunError, UsageError
from anystep.core.random import KEY_VERSION, Keys
from anystep.flow.condition import UNCONDITIONAL, Condition, ConditionSpec, fill_missing, to
from anystep.flow.condition import rows as some
from anystep.flow.guidance import guidance_scales
from anystep.flow.ladder import Schedule
from anystep.flow.query import Network
from anystep.flow.sampling import Callback, sample
from anystep.objectives.base import Objective
from anystep.run.facts import DataFacts


@dataclass(frozen=True)
class Plan:
    """How samples are generated: the steps, the guidance scale of each, and what a user should be warned of.

    ``network_calls``: forward passes per sample. A guided step takes two (label and null), unless W is an input of the
    network; one where W is 1 or 0.
    """

    schedule: Schedule
    guidance: Sequence[float]
    network_calls: int
    caution: str | None = None


@dataclass(frozen=True)
class Generator:
    """A trained network, put in evaluation mode, with all that turns noise into examples.

    ``shape`` is that of an example in network space, [C, H, W] or [D]; ``conditions`` is what the network is
    conditioned on, and ``condition_codecs`` normalise features, by entry. ``source`` names the run and ``ema`` the
    weights ("0.999", "none") in score records; ``caution`` is a warning about the weights, at any number of steps;
    ``key_version`` is that of the run's random keys (`core.random.Keys`). ``usual(index)`` is the condition of samples
    that are generated without one, in the data's unit (None: see `usual_condition`).
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

    @classmethod
    def of(cls, facts: DataFacts, **rest: Any) -> Self:
        """Return the generator for data with these facts; ``rest``: the other fields."""
        names = ("codec", "shape", "conditions", "condition_codecs", "key_version")
        return cls(**{name: getattr(facts, name) for name in names}, **rest)

    def __post_init__(self) -> None:
        if isinstance(self.network, nn.Module):
            self.network.eval()

    def noise(self, seed: int, index: Sequence[int], stream: str = "sample") -> Tensor:
        """Return standard normal noise [n, *shape], float32 on the CPU; noise i depends on (seed, index[i]) alone."""
        keys = Keys(seed, self.key_version)
        noises = [keys.normal(int(i), stream, self.shape) for i in index]
        return torch.stack(noises) if noises else torch.empty(0, *self.shape)

    def usual_condition(self, index: Sequence[int]) -> Condition:
        """Return the default condition of samples: `usual`; else class labels take turns, and features are missing.

        None for an unconditional network. Raises UsageError for features that the model was never trained without.
        """
        if self.usual is not None:
            return self.usual(index)
        named = self.conditions.named(self.conditions.nothing(len(index)))
        if self.conditions.label is not None and self.conditions.num_classes is not None:
            numbers = torch.as_tensor(np.asarray(index, dtype=np.int64))
            named[self.conditions.label] = numbers % self.conditions.num_classes
        return self.conditions.of(named)

    def plan(self, steps: int | Schedule, *, guidance: float | None = None, twice: bool = False) -> Plan:
        """Return how `generate` samples in this number of steps, or in these steps.

        ``guidance`` is the scale W, 1 for none, None "as trained". Raises ValueError for fewer than 1 step, guidance
        (other than 1) of an unconditional network, and guidance of a step that was trained with guidance unless
        ``twice``.
        """
        if guidance not in {None, 1} and not any(entry.drop for entry in self.conditions.entries.values()):
            why = "a condition that training drops at times: data.drop"
            why = why if self.conditions else "classes, and this model is unconditional: omit it"
            raise UsageError(f"guidance {guidance:g} needs {why}")
        chosen = list(steps) if isinstance(steps, Sequence) else self.objective.schedule(steps)
        rules = [self.objective.guidance_rule(step) for step in chosen]
        scales, warnings = guidance_scales(rules, guidance if self.conditions else 1.0, twice)
        twofold = 0 if getattr(self.network, "takes_guidance", False) else sum(scale not in {0, 1} for scale in scales)
        cautions = [self.objective.caution(chosen, guidance), *warnings]
        return Plan(chosen, scales, len(chosen) + twofold, "; ".join(filter(None, cautions)) or None)

    def generate(
        self,
        *,
        steps: int | Schedule | Plan,
        num: int = 16,
        seed: int = 0,
        index: Sequence[int] | None = None,
        noise: Tensor | None = None,
        condition: Condition | ArrayLike = None,
        guidance: float | None = None,
        twice: bool = False,
        batch: int = 256,
        callback: Callback | None = None,
    ) -> Tensor:
        """Return the samples numbered ``index``, by default 0 ... ``num`` - 1: x float32 [n, *shape] on the CPU.

        ``noise`` [n, *shape] is where they start (None: `noise` of seed and index). ``steps``, ``guidance`` and
        ``twice`` are as in `plan`, which may have been called before. ``condition`` is one class for all samples or one
        per sample; or features [n, ...] in the data's unit, numbers of any type; or a dict of both
        (`anystep.flow.condition`); None: `usual_condition`.

        ``seed`` and ``index`` also key the noise that stochastic methods add between steps: samples with one number
        have the same. ``batch`` samples are generated at a time, and ``callback(n, step, x)`` sees each batch after
        each step. Deterministic; only the rounding of a matrix product may differ between batch sizes.

        Raises ValueError as `plan` does, for a batch below 1, a condition that does not fit or of an unconditional
        network, and another count of numbers than of noises.
        """
        if batch < 1:
            raise UsageError(f"batch must be at least 1, got {batch}")
        plan = steps if isinstance(steps, Plan) else self.plan(steps, guidance=guidance, twice=twice)
        numbers = list(range(num if noise is None else len(noise)) if index is None else index)
        x0 = self.noise(seed, numbers) if noise is None else noise
        if len(numbers) != len(x0):
            raise UsageError(f"index must have one number per noise, {len(x0)} of them, got {len(numbers)}")
        given = self._encoded(self.usual_condition(numbers) if condition is None else condition, len(x0))
        done = []
        for start in range(0, len(x0), batch):
            rows = slice(start, start + batch)
            x = sample(
                self.network,
                self.objective.start(x0[rows].to(self.device), plan.schedule),
                steps=plan.schedule,
                condition=to(some(given, rows), self.device),
                guidance=plan.guidance,
                callback=callback,
                renoise=partial(self._renoise, seed, numbers[rows]) if self.objective.stochastic else None,
            )
            done.append(x.float().cpu())
        return torch.cat(done) if done else x0.clone()

    def _renoise(self, seed: int, index: Sequence[int], n: int) -> Tensor:
        return self.noise(seed, index, f"renoise/{n}").to(self.device)

    def decode(self, x: Tensor) -> NDArray[np.generic]:
        """Return examples from network space as the codec has them: images uint8 [n, H, W, C], vectors float32 [n, D].

        Raises RunError as `check_decodable` does.
        """
        self.check_decodable()
        return self.codec.decode(x).cpu().numpy()

    def check_decodable(self) -> None:
        """Raise RunError if something that the codec needs for decoding is missing."""
        if lack := self.codec.lacks():
            raise RunError(f"samples of {self.source or 'this model'} cannot be decoded: {lack}")

    def _encoded(self, condition: Condition | ArrayLike, length: int) -> Condition:
        """Return the condition of ``length`` samples as the network takes it, checked, on the CPU."""
        if condition is None:
            return None
        if not self.conditions:
            raise UsageError("a condition was given, but this model is unconditional: omit it")
        raw: Any = condition if isinstance(condition, Mapping) else torch.as_tensor(condition)
        if isinstance(raw, Tensor) and raw.ndim == 0:
            raw = raw.expand(length)
        named = {name: torch.as_tensor(values).cpu() for name, values in self.conditions.named(raw).items()}
        for name in self.conditions.features:
            named[name] = fill_missing(named[name].float())
            if not self.conditions.entries[name].drop and named[name].isnan().any():
                raise UsageError(f"{name} must be given, got NaN: this model was never trained without it")
            if named[name].isinf().any():
                raise UsageError(f"{name} must be finite, or NaN for nothing given")
        given = self.conditions.of(named)
        label, classes = self.conditions.class_label(given), self.conditions.num_classes
        if label is not None and classes is not None and len(wrong := label[(label < 0) | (label >= classes)]):
            raise UsageError(f"{self.conditions.label} must be in 0..{classes - 1}, got {int(wrong[0])}")
        self.conditions.check(given, length)
        return encode_condition(self.condition_codecs, self.conditions, given)
