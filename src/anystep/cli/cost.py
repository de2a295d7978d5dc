"""What a run would cost, before it is trained."""

from dataclasses import dataclass

import torch

from anystep.run.config import Config
from anystep.run.facts import DataFacts
from anystep.run.plan import forward_units, pair_units


@dataclass(frozen=True)
class Cost:
    """What a run costs. ``str`` gives it in one line."""

    updates: int
    images: int
    """Training examples: those of the last update count in full."""
    forward_units: int
    """Network forward units: one example through the network is 1, its backward pass 2."""
    pair_units: int
    """Those of them that generate pairs."""
    parameters: int
    """Of the network, all of them trained."""

    @classmethod
    def of(cls, config: Config) -> "Cost":
        """Return the cost of a run.

        Opens its data and builds its network. Raises, as training would, UsageError for options that do not fit the
        data, and DataError.
        """
        facts = DataFacts.of(config.data.open("train"), config.codec)
        config.check(facts.conditions)
        with torch.random.fork_rng(devices=[]):
            network = config.network.build(facts.shape, facts.conditions, config.objective.M)
        return cls(
            updates=config.training.steps,
            images=config.training.steps * config.training.batch,
            forward_units=forward_units(config),
            pair_units=pair_units(config),
            parameters=sum(weight.numel() for weight in network.parameters()),
        )

    def __str__(self) -> str:
        pairs = f" ({self.pair_units:,} of them for pairs)" if self.pair_units else ""
        return (
            f"{self.updates:,} updates, {self.images:,} images, {self.forward_units:,} network forward units{pairs}, "
            f"{self.parameters:,} parameters"
        )
