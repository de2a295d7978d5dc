"""What the mathematics asks of a network, and nothing about how it is built."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from anystep.core.errors import UsageError


@runtime_checkable
class Network(Protocol):
    """A velocity field ``s(x_t, t, d, label, guidance)``.

    ``x``: [B, ...]; ``t``, ``d``, ``guidance``: float32 [B]; ``label``: int64 [B], where ``num_classes`` is the null
    label. Returns the average velocity from ``t`` to ``t + d``, shaped like ``x``. A network that was built without
    a step or guidance input ignores it; one that takes W says so by an attribute ``takes_guidance``.
    """

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None for an unconditional network."""

    def __call__(
        self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None = None, guidance: Tensor | None = None
    ) -> Tensor:
        """Return the velocity, shaped like ``x``."""


def null_label(network: Network) -> int:
    """Return the label that means "no class": ``num_classes``, never a literal.

    Raises UsageError for an unconditional network, and for one that has no ``num_classes``.
    """
    if not hasattr(network, "num_classes"):
        raise UsageError(
            f"guidance needs {type(network).__name__}.num_classes: the number of classes, also the label of no class"
        )
    if network.num_classes is None:
        raise UsageError("this network is unconditional: it has no classes and no null label")
    return network.num_classes


def takes_guidance(network: Network) -> bool:
    """Tell whether the network is told the guidance scale W, so that one forward pass makes a guided velocity."""
    return bool(getattr(network, "takes_guidance", False))
