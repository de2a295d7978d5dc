"""How far training is, for what changes over a phase: curricula of methods, and weights that rise."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PhaseProgress:
    """How far the phase is: ``step`` updates done, of ``steps`` in it; ``index`` is the phase's own (`Phase.index`)."""

    step: int
    steps: int
    index: int = 0

    @property
    def fraction(self) -> float:
        """Share of the phase that is done, in [0, 1)."""
        return self.step / self.steps
