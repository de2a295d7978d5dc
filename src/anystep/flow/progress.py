"""Progress of training, for what changes over a phase: curricula of methods, and weights that rise."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PhaseProgress:
    """Progress of a phase: ``step`` of its ``steps`` updates are done. ``index`` is `Phase.index`."""

    step: int
    steps: int
    index: int = 0

    @property
    def fraction(self) -> float:
        """Fraction of the phase that is done, in [0, 1)."""
        return self.step / self.steps
