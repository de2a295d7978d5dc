"""What a method is: a frozen set of hyper-parameters that maps a batch to a regression.

An objective never owns a loop, never does I/O and never asks how many processes there are. All its randomness comes
from a `Draw`, which is keyed by (seed, step, stream) and made for the global batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from anystep.core.errors import UsageError
from anystep.core.random import Draw
from anystep.core.registry import Option
from anystep.flow.condition import Condition, ConditionSpec, where
from anystep.flow.guidance import GuidanceRule
from anystep.flow.ladder import Schedule, Step
from anystep.flow.network import Network, null
from anystep.flow.penalties.squared import squared_error
from anystep.flow.progress import PhaseProgress
from anystep.flow.query import Query
from anystep.flow.sampling import Callback, Renoise, sample


@dataclass(frozen=True)
class Batch:
    """Our rows of the global batch: data ``x1`` [B, ...], its noise ``x0`` alike, and what each is given."""

    x1: Tensor
    x0: Tensor
    condition: Condition = None


@dataclass(frozen=True)
class Networks:
    """``online`` is trained; ``target`` is its moving average, ``teacher`` a frozen network; neither gets gradients."""

    online: Network
    target: Network | None = None
    teacher: Network | None = None


@dataclass(frozen=True)
class Targets:
    """A regression: ``query`` [B], what the answer should be, each row's weight (None: 1) and tag.

    ``tag`` int64 [B] is an index into the objective's `tags`; it only sorts the log.
    """

    query: Query
    target: Tensor
    tag: Tensor
    weight: Tensor | None = None


@dataclass(frozen=True)
class Losses:
    """One loss for each of our rows [B], rows that count for nothing included, with what the log sorts it by.

    The update's loss is the sum of ``rows`` over all ranks and micro-batches over the global batch; ``t`` [B] and
    ``tag`` [B] are in the same order. ``logged`` [B] is what the log shows where that is not ``rows``: the loss
    without the section `weight`.
    """

    rows: Tensor
    t: Tensor
    tag: Tensor
    logged: Tensor | None = None


#: charge(prediction, targets): the loss of each row, by the run's penalty and weight
Charge = Callable[[Tensor, Targets], Losses]


@dataclass(frozen=True)
class Pairs:
    """Noise joined to the data that a trained flow carries it to: ``num`` pairs, in ``steps`` Euler steps, guided."""

    num: int
    steps: int
    guidance: float = 1.0

    @property
    def cost(self) -> int:
        """Network forward passes that all of them take: a guided step takes two."""
        return self.num * self.steps * (1 if self.guidance in {0, 1} else 2)


@dataclass(frozen=True)
class Phase:
    """A part of a run: what is trained in it, on how much of the run's images, and what it begins with.

    Every phase but the first begins with a hand-over: the average that is kept for evaluation becomes the frozen
    teacher, and the student goes on from a copy of it. ``share`` is relative to the other phases' shares; ``cost`` is
    that of an update, flow matching's being 1. ``pairs`` are made by the teacher first, and trained on in place of the
    data. ``index`` reaches the objective as `PhaseProgress.index`. ``teaches`` marks the phase that trains the first
    teacher: it is left out of a run that begins with a trained network (`init.run`), and its share then is no matter.
    """

    name: str
    objective: "Objective"
    share: float
    cost: float
    index: int = 0
    pairs: Pairs | None = None
    teaches: bool = False


def drop(
    network: Network, condition: Condition, probability: float, draw: Draw, kept: Tensor | None = None
) -> Condition:
    """Replace conditions by "nothing given" with the given probability, except in ``kept`` rows (bool [B]).

    All entries that may be dropped are dropped together. Raises UsageError for a network without ``null``.
    """
    if condition is None or (probability == 0 and not hasattr(network, "null")):
        return condition
    dropped = draw.uniform("label_drop") < probability
    if kept is not None:
        dropped = dropped & ~kept
    return where(dropped, null(network, condition), condition)


def check_built_in(guidance: float, label_drop: float, conditions: ConditionSpec) -> None:
    """Raise UsageError for guidance in training without a condition, or with a null condition that nothing trains."""
    if guidance != 1 and not conditions:
        raise UsageError(f"objective.guidance {guidance:g} needs classes, and this data has none: set it to 1")
    if guidance != 1 and label_drop == 0:
        raise UsageError("objective.guidance needs a trained null label: set objective.label_drop above 0, e.g. 0.1")


class Objective(Option, ABC, section="objective"):
    """One method. Subclasses are frozen dataclasses whose fields are the method's hyper-parameters."""

    #: number of smallest steps of the ladder, a power of two; subclasses have it as a field
    M: int = 128
    #: probability that training replaces a label by the null label; subclasses have it as a field
    label_drop: float = 0.0
    #: whether the network needs the step d as an input
    uses_step: ClassVar[bool] = False
    #: whether d takes any value in [0, 1], not rungs of the ladder only: the network's step encoding is continuous then
    any_step: ClassVar[bool] = False
    #: whether the network needs the guidance scale W as an input
    takes_guidance: ClassVar[bool] = False
    #: whether targets come from a moving average of the online network
    uses_target: ClassVar[bool] = False
    #: whether targets come from a frozen, trained network
    uses_teacher: ClassVar[bool] = False
    #: whether targets differentiate the network in forward mode (a JVP): its inputs should be smooth then
    uses_jvp: ClassVar[bool] = False
    #: what the network's last layer says: the velocity, or the noise in x_t (the network makes a velocity of it)
    predicts: ClassVar[str] = "velocity"
    #: whether samples are drawn by jumps to the end with fresh noise in between (consistency models)
    stochastic: ClassVar[bool] = False
    #: whether the loss is one error per row: a penalty can replace it, and a weight multiply it
    per_row: ClassVar[bool] = True
    #: whether targets depend on how far the run is: its length cannot change
    scheduled: ClassVar[bool] = False
    #: whether the loss is a small difference of close outputs, which bfloat16 would drown: computed in float32 always
    exact: ClassVar[bool] = False

    @property
    def tags(self) -> tuple[str, ...]:
        """Names of the kinds of row over all phases: ``flow`` (empirical velocities) first, otherwise the step d."""
        return ("flow",)

    @property
    def marked(self) -> tuple[str, ...]:
        """Those of `tags` whose rows the section `weight` acts on: they regress what a network predicts."""
        return tuple(tag for tag in self.tags if tag not in {"flow", "guided"})

    @property
    def group(self) -> int:
        """Neighbouring rows that are compared with each other: a micro-batch holds a multiple of so many."""
        return 1

    def network_inputs(self) -> dict[str, tuple[Any, ...]]:
        """Return the fields of a network's config that matter to this method: the values that will do, best first."""
        step = ("continuous",) if self.any_step else ("log2", "continuous")
        return {
            "step_encoding": step if self.uses_step else ("none", "log2", "continuous"),
            "guidance_input": (self.takes_guidance,),
            "prediction": ("noise",) if self.predicts == "noise" else ("velocity", "noise"),
        }

    def phases(self) -> tuple[Phase, ...]:
        """Return the parts of a run, one for nearly every method."""
        return (Phase("train", self, share=1.0, cost=self.cost),)

    def check(self, conditions: ConditionSpec) -> None:
        """Raise UsageError when data whose examples are given this cannot be trained on."""

    def check_batch(self, batch: int) -> None:
        """Raise ValueError when a global batch of so many rows leaves a part of the method untrained."""

    @abstractmethod
    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
        """Map a batch to a regression. Makes no gradient."""

    def loss(
        self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress, charge: Charge | None = None
    ) -> Losses:
        """Return the loss of each row: ``charge`` of the prediction, None: the error times the targets' own weight."""
        targets = self.targets(networks, batch, draw, progress)
        query = targets.query
        prediction = networks.online(query.x_t, query.t, query.d, query.condition, query.guidance)
        return (charge or self.charge)(prediction, targets)

    def charge(self, prediction: Tensor, targets: Targets) -> Losses:
        """Return the loss of each row by the method alone: its own error times the targets' own weight."""
        rows = self.error(prediction, targets.target, targets.query)
        if targets.weight is not None:
            rows = rows * targets.weight
        return Losses(rows, targets.query.t, targets.tag)

    def error(self, prediction: Tensor, target: Tensor, query: Query) -> Tensor:
        """Return how far the prediction at ``query`` is off, [B]: the mean squared error."""
        return squared_error(prediction, target)

    def sample(
        self,
        network: Network,
        noise: Tensor,
        *,
        steps: Schedule,
        condition: Condition,
        guidance: Sequence[float],
        callback: Callback | None = None,
        renoise: Renoise | None = None,
    ) -> Tensor:
        """Carry ``noise`` [B, ...] to data: by Euler steps or, with a `stochastic` method, by jumps to the end.

        After each jump but the last comes fresh noise, ``renoise(n)`` of step n = 0, 1, ..., shaped like ``noise``.
        """
        x_t = self.start(noise, steps)
        if self.stochastic and renoise is None:
            raise UsageError(f"{self.name} re-noises between steps: pass `renoise`")
        return sample(
            network,
            x_t,
            steps=steps,
            condition=condition,
            guidance=guidance,
            callback=callback,
            renoise=renoise if self.stochastic else None,
        )

    def start(self, noise: Tensor, schedule: Schedule) -> Tensor:
        """Return the x_t that sampling begins with, made of ``noise`` [B, ...]: the noise itself for most methods."""
        return noise

    @abstractmethod
    def schedule(self, steps: int) -> Schedule:
        """Return how a budget of ``steps`` is sampled."""

    def guidance_rule(self, step: Step) -> GuidanceRule:
        """Return what guidance means at a sampling step: none is built in, null is trained if dropped."""
        return GuidanceRule(null="trained" if self.label_drop > 0 else "never")

    def caution(self, schedule: Schedule, guidance: float | None) -> str | None:
        """Return what a person should know of samples that are drawn like this, or None."""
        return None

    @property
    def cost(self) -> float:
        """Cost of an update on this objective's own targets, flow matching's being 1: forward 1, backward 2, over 3."""
        return 1.0
