"""What a method is: a frozen set of hyper-parameters that maps a batch to a regression.

An objective has no loop, does no I/O and does not know how many processes there are. All its randomness comes from a
`Draw`, which is keyed by (seed, step, stream) and covers the global batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Interval
from torch import Tensor

from anystep.core.errors import UsageError
from anystep.core.random import Draw
from anystep.core.registry import Option
from anystep.flow.condition import Condition, ConditionSpec, where
from anystep.flow.guidance import GuidanceRule
from anystep.flow.ladder import Schedule, Step, equal_schedule, instantaneous_schedule
from anystep.flow.penalties.squared import squared_error
from anystep.flow.query import Network, PhaseProgress, Query, null

#: type of a field that holds a guidance scale W
GuidanceScale = Annotated[float, Interval(ge=0, le=100)]


@dataclass(frozen=True)
class Batch:
    """Our part of the global batch: data ``x1`` [B, ...], noise ``x0`` of the same shape, and conditions."""

    x1: Tensor
    x0: Tensor
    condition: Condition = None


@dataclass(frozen=True)
class Networks:
    """``online`` is trained; ``target`` is its target EMA, ``teacher`` a frozen network; neither gets gradients."""

    online: Network
    target: Network | None = None
    teacher: Network | None = None


@dataclass(frozen=True)
class Targets:
    """A regression: ``query`` [B], ``target`` shaped like x_t, and each example's tag and weight (None: 1).

    ``tag`` int64 [B] is an index into the objective's `tags`: the kind of the example.
    """

    query: Query
    target: Tensor
    tag: Tensor
    weight: Tensor | None = None


@dataclass(frozen=True)
class Losses:
    """The loss of each of our examples, ``rows`` [B], with ``t`` [B] and ``tag`` [B] for the log.

    The update's loss is the sum of ``rows`` over all ranks and micro-batches, divided by the global batch. ``logged``
    [B] is what the log shows if that is not ``rows``: the loss without the section `weight`. With a weight, ``weight``
    and ``raw`` [B] are its factor and the mean squared error, for the log too.
    """

    rows: Tensor
    t: Tensor
    tag: Tensor
    logged: Tensor | None = None
    weight: Tensor | None = None
    raw: Tensor | None = None


#: charge(prediction, targets): the loss of each example, by the run's penalty and weight
Charge = Callable[[Tensor, Targets], Losses]


def guided_passes(guidance: float) -> int:
    """Return how many forward passes one velocity takes: 2 with guidance, 1 for W = 1 (none) and W = 0 (null only)."""
    return 1 if guidance in {0, 1} else 2


@dataclass(frozen=True)
class Pairs:
    """Noise and the sample that a trained flow generates from it: ``num`` pairs, in ``steps`` guided Euler steps."""

    num: int
    steps: int
    guidance: float = 1.0

    @property
    def forward_passes(self) -> int:
        """Forward passes of the network that all pairs take."""
        return self.num * self.steps * guided_passes(self.guidance)


@dataclass(frozen=True)
class Phase:
    """A part of a run: what it trains, on which fraction of the run's images.

    Every phase but the first starts with a teacher update: the evaluation EMA becomes the frozen teacher, and the
    student is initialised from a copy of it. ``share`` is relative to the other phases' shares; ``cost`` is that of an
    update, relative to flow matching. ``pairs``: the teacher generates them first, and they replace the data.
    ``index`` reaches the objective as `PhaseProgress.index`. ``teaches`` marks the phase that trains the first teacher:
    a run that is initialised from a trained network (`init.run`) skips it, and its share is ignored.
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
    """Replace conditions by "nothing given" with this probability, except in the examples ``kept`` (bool [B]).

    All entries that may be dropped are dropped together. Raises UsageError for a network without ``null``.
    """
    if condition is None or (probability == 0 and not hasattr(network, "null")):
        return condition
    dropped = draw.uniform("label_drop") < probability
    if kept is not None:
        dropped = dropped & ~kept
    return where(dropped, null(network, condition), condition)


class Objective(Option, ABC, section="objective"):
    """One method. Subclasses are frozen dataclasses whose fields are the method's hyper-parameters."""

    # Subclasses that use one of these have it as a field.
    #: number of smallest steps, a power of two
    M: int = 128
    #: probability that training replaces a condition by "nothing given"
    label_drop: float = 0.0
    #: guidance scale W that is built into the training targets; 1 means none
    guidance: float = 1.0

    #: whether the network needs the step size d as an input
    uses_step: ClassVar[bool] = False
    #: whether d takes any value in [0, 1], not only 1/M, ..., 1/2, 1: the network's step encoding is continuous then
    any_step: ClassVar[bool] = False
    #: whether the network needs the guidance scale W as an input
    takes_guidance: ClassVar[bool] = False
    #: whether targets come from an EMA of the online network
    uses_target: ClassVar[bool] = False
    #: whether targets come from a frozen, trained network
    uses_teacher: ClassVar[bool] = False
    #: whether targets differentiate the network in forward mode (a JVP): its inputs should be smooth then
    uses_jvp: ClassVar[bool] = False
    #: what the network's last layer predicts: the velocity, or the noise in x_t (converted to a velocity)
    predicts: ClassVar[str] = "velocity"
    #: whether samples are one-step predictions of x1 with re-noising in between (consistency models)
    stochastic: ClassVar[bool] = False
    #: whether the loss is one error per example: a penalty can replace it, and a weight multiply it
    per_row: ClassVar[bool] = True
    #: whether targets depend on the fraction of the run that is done: its length cannot change
    scheduled: ClassVar[bool] = False
    #: whether the loss is a small difference of close outputs, lost in bfloat16: always computed in float32
    exact: ClassVar[bool] = False

    @property
    def tags(self) -> tuple[str, ...]:
        """Names of the kinds of example over all phases: ``flow`` (empirical velocities) first, else the step d."""
        return ("flow",)

    @property
    def marked(self) -> tuple[str, ...]:
        """Those of `tags` that the section `weight` acts on: a network predicts their target. None at share 0."""
        if getattr(self, "share", 1) == 0:
            return ()
        return tuple(tag for tag in self.tags if tag not in {"flow", "guided"})

    @property
    def group(self) -> int:
        """Number of neighbouring examples that are compared with each other; it must divide a micro-batch."""
        return 1

    @property
    def cost(self) -> float:
        """Forward passes of an update on this objective's targets, relative to flow matching (backward counts 2)."""
        return 1.0

    def network_inputs(self) -> dict[str, tuple[Any, ...]]:
        """Return the values that the method allows for fields of a network's config, best first."""
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
        """Raise UsageError if data with these conditions cannot be trained on."""
        if self.guidance != 1 and not conditions:
            raise UsageError(f"objective.guidance {self.guidance:g} needs classes, and this data has none: set it to 1")
        if self.guidance != 1 and self.label_drop == 0:
            raise UsageError(
                "objective.guidance needs a trained null label: set objective.label_drop above 0, e.g. 0.1"
            )

    def check_batch(self, batch: int) -> None:
        """Raise UsageError if a global batch of this size leaves a part of the method untrained."""

    @abstractmethod
    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
        """Map a batch to a regression, without gradients."""

    def loss(
        self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress, charge: Charge | None = None
    ) -> Losses:
        """Return the loss per example: by ``charge`` if given and `per_row`, else by the method's own `charge`."""
        targets = self.targets(networks, batch, draw, progress)
        query = targets.query
        prediction = networks.online(query.x_t, query.t, query.d, query.condition, query.guidance)
        return (charge if charge and self.per_row else self.charge)(prediction, targets)

    def charge(self, prediction: Tensor, targets: Targets) -> Losses:
        """Return the method's own loss per example: its `error` times the targets' weight."""
        rows = self.error(prediction, targets.target, targets.query)
        if targets.weight is not None:
            rows = rows * targets.weight
        return Losses(rows, targets.query.t, targets.tag)

    def error(self, prediction: Tensor, target: Tensor, query: Query) -> Tensor:
        """Return the error of a prediction at ``query``, [B]: the mean squared error."""
        return squared_error(prediction, target)

    def start(self, noise: Tensor, schedule: Schedule) -> Tensor:
        """Return the x_t that sampling starts from, given ``noise`` [B, ...]: for most methods the noise itself."""
        return noise

    def schedule(self, steps: int) -> Schedule:
        """Return ``steps`` equal steps, evaluated at d = their length if `any_step`, else at d = 0."""
        return equal_schedule(steps) if self.any_step else instantaneous_schedule(steps)

    def guidance_rule(self, step: Step) -> GuidanceRule:
        """Return what guidance means at a sampling step: none is built in, null is trained if dropped."""
        return GuidanceRule(null="trained" if self.label_drop > 0 else "never")

    def caution(self, schedule: Schedule, guidance: float | None) -> str | None:
        """Return a warning for the user about samples with this schedule and guidance, or None."""
        return None
