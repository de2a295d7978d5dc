"""What every network of the library shares: how it is configured, what it predicts, and what it is given."""

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from anystep.core.errors import UsageError
from anystep.core.registry import Option
from anystep.flow.condition import Condition, ConditionSpec
from anystep.flow.conventions import to_vp, velocity_from_noise
from anystep.networks.embeddings import Conditioning, Input, StepEncoding

Prediction = Literal["velocity", "noise"]


class VelocityNetwork(nn.Module, ABC):
    """A module that keeps the contract of `anystep.flow.network.Network`, whatever its last layer says.

    ``shape`` is that of one example, without the batch axis; ``conditions`` says what an example is given.
    With ``prediction`` "noise" the last layer says the noise in x_t; it is shown ``x_tau = x_t / sqrt(t^2 + (1-t)^2)``,
    diffusion's variance-preserving input. `forward` makes a velocity of it, so that nobody else need know.
    """

    #: what t, d, the condition and guidance come in by (the name is that of the stored weights)
    condition: Conditioning

    def __init__(self, shape: tuple[int, ...], conditions: ConditionSpec, prediction: Prediction = "velocity") -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.conditions = conditions
        self.prediction = prediction

    def null(self, condition: Condition) -> Condition:
        """Return "nothing given" in place of every entry of ``condition`` that may be left out."""
        return self.conditions.null(condition)

    @property
    def takes_guidance(self) -> bool:
        """Whether the network is told the guidance scale W; one that is not ignores it."""
        return self.condition.guidance is not None

    def forward(
        self, x: Tensor, t: Tensor, d: Tensor, condition: Condition = None, guidance: Tensor | None = None
    ) -> Tensor:
        """Return the average velocity from ``t`` to ``t + d``, shaped and typed like ``x``. Subclasses write `output`.

        ``x``: [B, *shape]; ``t``, ``d``, ``guidance``: float32 [B]; ``condition`` None: nothing given; ``guidance``: W,
        None: 1. Raises UsageError for a condition that does not fit `conditions`, labels out of range (on the CPU)
        among it, and for a shape that does not fit.
        """
        if self.prediction == "velocity":
            return self.output(x, t, d, condition, guidance)
        x_t = x.to(torch.promote_types(x.dtype, torch.float32))  # what comes of it is divided by t: no rounding first
        noise = self.output(to_vp(x_t, t), t, d, condition, guidance)
        return velocity_from_noise(x_t, t, noise).to(x.dtype)

    @abstractmethod
    def output(self, x: Tensor, t: Tensor, d: Tensor, condition: Condition, guidance: Tensor | None) -> Tensor:
        """Return what the last layer says, shaped like ``x`` and of its dtype; the arguments are those of `forward`."""

    def forget(self, name: Input) -> None:
        """Make the output independent of an input until training says otherwise: its embedding becomes exactly 0.

        For a network that begins with weights which were trained without it. The gradient reaches the embedder.
        """
        self.condition.forget(name)

    def fold(self, name: Input) -> None:
        """Make the output, whatever d or W, what it is at d = 0 or W = 1, to rounding; without the input do nothing.

        For weights that are to go on without the input, or with it encoded otherwise.
        """
        self.condition.fold(name)


class NetworkConfig(Option, ABC, section="network"):
    """The hyper-parameters of a network. Subclasses are frozen dataclasses, checked when they are made."""

    #: it has attention, whose fused kernels cannot be differentiated in forward mode
    attends: ClassVar[bool] = False

    # The inputs of the network. A subclass that can change one has it as a field, of this name.
    #: encoding of the step size d; "any" for a network that reads d as it likes
    step_encoding: StepEncoding | Literal["any"] = "any"
    #: whether the guidance scale is an input
    guidance_input: bool = False
    #: what the last layer predicts
    prediction: Prediction = "velocity"
    #: factor of t, and of d or its rung, in [0, 1], in their sinusoids
    time_scale: float = 1.0

    def with_inputs(self, **inputs: object) -> Self:
        """Return the config with these inputs (fields above). Raises UsageError for one that it needs and lacks."""
        fields = {field.name for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        for name in inputs.keys() - fields:
            free = name == "time_scale" or getattr(self, name) == "any"
            if not free and inputs[name] != getattr(self, name):
                raise UsageError(f"network.{name} must be {inputs[name]!r}, and {self.name} has no such field")
        changed = {name: value for name, value in inputs.items() if name in fields}
        return dataclasses.replace(self, **changed)  # type: ignore[type-var]

    @abstractmethod
    def build(self, shape: tuple[int, ...], conditions: ConditionSpec, M: int = 128) -> nn.Module:
        """Return the network for examples of ``shape`` (no batch axis), freshly initialised from torch's global seed.

        ``conditions`` says what an example is given (`UNCONDITIONAL`: nothing); ``M`` is the number of smallest steps
        of the objective's ladder, whose levels the log2 step encoding counts. Raises UsageError for a shape that does
        not fit.
        """
