"""What every network of the library shares: its config, its inputs, and what it predicts."""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from anystep.core.errors import UsageError
from anystep.core.fields import PositiveFloat
from anystep.core.registry import Option
from anystep.flow.condition import Condition, ConditionSpec
from anystep.flow.conventions import to_vp, velocity_from_noise
from anystep.networks.embeddings import TIME_SCALE, Conditioning, StepEncoding

Prediction = Literal["velocity", "noise"]


class VelocityNetwork(nn.Module, ABC):
    """A module that keeps the contract of `anystep.flow.query.Network`, whatever its last layer predicts.

    ``conditions`` describes the condition of an example. With ``prediction`` "noise" the last layer predicts the noise
    in x_t from ``x_t / sqrt(t^2 + (1-t)^2)``, diffusion's input, and `forward` converts it to a velocity.
    """

    #: embeds t, d, the condition and guidance (the name is that of the stored weights)
    condition: Conditioning

    def __init__(self, conditions: ConditionSpec, prediction: Prediction = "velocity") -> None:
        super().__init__()
        self.conditions = conditions
        self.prediction = prediction

    def null(self, condition: Condition) -> Condition:
        """Return "nothing given" in place of every entry of ``condition`` that may be dropped."""
        return self.conditions.null(condition)

    @property
    def takes_guidance(self) -> bool:
        """Whether the guidance scale W is an input; otherwise it is ignored."""
        return self.condition.guidance is not None

    def forward(
        self, x: Tensor, t: Tensor, d: Tensor, condition: Condition = None, guidance: Tensor | None = None
    ) -> Tensor:
        """Return the average velocity from ``t`` to ``t + d``, shaped and typed like ``x``. Subclasses write `output`.

        ``x``: [B, ...]; ``t``, ``d``, ``guidance`` (None: W = 1): float32 [B]; ``condition`` None: nothing given.
        Raises UsageError for a shape or a condition that does not fit, and, on the CPU, for labels out of range.
        """
        if self.prediction == "velocity":
            return self.output(x, t, d, condition, guidance)
        x_t = x.to(torch.promote_types(x.dtype, torch.float32))  # the result is divided by t: no rounding before
        noise = self.output(to_vp(x_t, t), t, d, condition, guidance)
        return velocity_from_noise(x_t, t, noise).to(x.dtype)

    @abstractmethod
    def output(self, x: Tensor, t: Tensor, d: Tensor, condition: Condition, guidance: Tensor | None) -> Tensor:
        """Return the last layer's prediction, shaped and typed like ``x``; the arguments are those of `forward`."""


class NetworkConfig(Option, ABC, section="network"):
    """The hyper-parameters of a network. Subclasses are frozen dataclasses, checked when they are built."""

    #: whether it has attention, whose fused kernels cannot be differentiated in forward mode
    attends: ClassVar[bool] = False

    # The inputs of the network, described in `VelocityNetworkConfig`. A subclass that can change one has it as a field.
    step_encoding: StepEncoding | Literal["any"] = "any"  # "any": an encoding of the network's choice
    guidance_input: bool = False
    prediction: Prediction = "velocity"
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

        ``conditions`` describes the condition of an example (`UNCONDITIONAL`: none); ``M`` is the objective's number of
        smallest steps, whose levels the log2 step encoding counts. Raises UsageError for a shape that does not fit.
        """


@dataclass(frozen=True)
class VelocityNetworkConfig(NetworkConfig):
    """The inputs and the prediction of a `VelocityNetwork`."""

    step_encoding: StepEncoding = "log2"
    """Encoding of the step size d: its level, log2(1/d), its value, or no step input."""
    guidance_input: bool = False
    """Whether the guidance scale W is an input, so that one forward pass per step is guided by any W."""
    prediction: Prediction = "velocity"
    """What the last layer predicts: the velocity, or the noise in x_t (epsilon of Ho et al. 2020), converted to one."""
    time_scale: PositiveFloat = TIME_SCALE
    """Factor of t in [0, 1], and of d or its level, in their sinusoids, above 0 (DiT: 1000 levels). Methods that
    differentiate the network in time want 1 to 16."""
