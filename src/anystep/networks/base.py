"""What every network of the library shares: how it is configured, what it says, and how it reads its labels."""

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from anystep.core.errors import UsageError
from anystep.core.registry import Option
from anystep.flow.conventions import to_vp, velocity_from_noise
from anystep.networks.embeddings import Condition, Input, StepEncoding

Prediction = Literal["velocity", "noise"]


class VelocityNetwork(nn.Module, ABC):
    """A module that keeps the contract of `anystep.flow.network.Network`, whatever its last layer says.

    ``shape`` is that of one example, without the batch axis; ``num_classes`` is None for an unconditional network.
    With ``prediction`` "noise" the last layer says the noise in x_t; it is shown ``x_tau = x_t / sqrt(t^2 + (1-t)^2)``,
    diffusion's variance-preserving input. `forward` makes a velocity of it, so that nobody else need know.
    """

    #: what t, d, label and guidance come in by
    condition: Condition

    def __init__(self, shape: tuple[int, ...], num_classes: int | None, prediction: Prediction = "velocity") -> None:
        super().__init__()
        if num_classes is not None and num_classes < 1:
            raise UsageError(f"num_classes must be at least 1, or None for an unconditional network, got {num_classes}")
        self.shape = tuple(shape)
        self.prediction = prediction
        self._num_classes = num_classes

    @property
    def num_classes(self) -> int | None:
        """Number of classes, which is also the null label; None for an unconditional network."""
        return self._num_classes

    @property
    def takes_guidance(self) -> bool:
        """Whether the network is told the guidance scale W; one that is not ignores it."""
        return self.condition.guidance is not None

    def forward(
        self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance: Tensor | None = None
    ) -> Tensor:
        """Return the average velocity from ``t`` to ``t + d``, shaped and typed like ``x``. Subclasses write `output`.

        ``x``: [B, *shape]; ``t``, ``d``, ``guidance``: float32 [B]; ``label``: int64 [B], where ``num_classes`` is
        null, None: all null; ``guidance``: W, None: 1. Raises ValueError for labels out of range (on the CPU) or given
        to an unconditional network, and for a shape that does not fit.
        """
        if self.prediction == "velocity":
            return self.output(x, t, d, label, guidance)
        x_t = x.to(torch.promote_types(x.dtype, torch.float32))  # what comes of it is divided by t: no rounding first
        noise = self.output(to_vp(x_t, t), t, d, label, guidance)
        return velocity_from_noise(x_t, t, noise).to(x.dtype)

    @abstractmethod
    def output(self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None, guidance: Tensor | None) -> Tensor:
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

    def read_label(self, label: Tensor | None, t: Tensor) -> Tensor | None:
        """Return the labels to embed: all null where ``label`` is None, None for an unconditional network.

        Raises ValueError when an unconditional network is given labels, and for a label outside 0 ... num_classes.
        The range is checked on the CPU only: elsewhere it would wait for the device, whose own assertion stops it.
        """
        if self.num_classes is None:
            if label is not None:
                raise UsageError("this network is unconditional: it takes no labels")
            return None
        if label is None:
            return torch.full(t.shape, self.num_classes, dtype=torch.int64, device=t.device)
        if label.device.type == "cpu" and not torch.compiler.is_compiling():
            wrong = label[(label < 0) | (label > self.num_classes)]
            if len(wrong):
                raise UsageError(
                    f"label must be 0 ... {self.num_classes - 1}, or {self.num_classes} for null, got {int(wrong[0])}"
                )
        return label


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
    def build(self, shape: tuple[int, ...], num_classes: int | None, M: int = 128) -> nn.Module:
        """Return the network for examples of ``shape`` (no batch axis), freshly initialised from torch's global seed.

        Any module will do whose ``forward(x, t, d, label=None, guidance=None)`` returns a velocity shaped like ``x``.
        ``num_classes`` is None for an unconditional network; ``M`` is the number of smallest steps of the objective's
        ladder, which the log2 step encoding counts rungs of. Raises ValueError for a shape that does not fit.
        """
