"""What every network of the library shares: how it is configured, and how it reads its labels."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from anystep.networks.embeddings import StepEncoding


class VelocityNetwork(nn.Module, ABC):
    """A module that keeps the contract of `anystep.flow.network.Network`.

    ``shape`` is that of one example, without the batch axis; ``num_classes`` is None for an unconditional network.
    """

    def __init__(self, shape: tuple[int, ...], num_classes: int | None) -> None:
        super().__init__()
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, or None for an unconditional network, got {num_classes}")
        self.shape = tuple(shape)
        self._num_classes = num_classes

    @property
    def num_classes(self) -> int | None:
        """Number of classes, which is also the null label; None for an unconditional network."""
        return self._num_classes

    @abstractmethod
    def forward(
        self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance: Tensor | None = None
    ) -> Tensor:
        """Return the average velocity from ``t`` to ``t + d``, shaped like ``x``.

        ``x``: [B, *shape]; ``t``, ``d``, ``guidance``: float32 [B]; ``label``: int64 [B], None means that every label
        is null.
        """

    def read_label(self, label: Tensor | None, t: Tensor) -> Tensor | None:
        """Return the labels to embed: all null where ``label`` is None, None for an unconditional network.

        Raises ValueError when an unconditional network is given labels, and for a label outside 0 ... num_classes.
        The range is checked on the CPU only: elsewhere it would wait for the device, whose own assertion stops it.
        """
        if self.num_classes is None:
            if label is not None:
                raise ValueError("this network is unconditional: it takes no labels")
            return None
        if label is None:
            return torch.full(t.shape, self.num_classes, dtype=torch.int64, device=t.device)
        if label.device.type == "cpu" and not torch.compiler.is_compiling():
            wrong = label[(label < 0) | (label > self.num_classes)]
            if len(wrong):
                raise ValueError(
                    f"label must be 0 ... {self.num_classes - 1}, or {self.num_classes} for null, got {int(wrong[0])}"
                )
        return label


class NetworkConfig(ABC):
    """The hyper-parameters of a network. Subclasses are frozen dataclasses, checked when they are made."""

    name: ClassVar[str]

    #: how the network is told d; subclasses have it as a field
    step_encoding: StepEncoding

    @abstractmethod
    def build(self, shape: tuple[int, ...], num_classes: int | None, M: int = 128) -> VelocityNetwork:
        """Return the network for examples of ``shape`` (no batch axis), freshly initialised from torch's global seed.

        ``num_classes`` is None for an unconditional network; ``M`` is the number of smallest steps of the objective's
        ladder, which the log2 step encoding counts rungs of. Raises ValueError for a shape that does not fit.
        """
