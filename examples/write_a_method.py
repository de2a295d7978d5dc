"""Write a training method of your own.

    python examples/write_a_method.py [FOLDER]

Flow matching that looks at noisy times more often. A method is a frozen dataclass: its fields are options, and
`targets` maps a batch to a regression. The run is then loaded in a new process, which imports this file by name.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Gt

import anystep
from anystep.core.fields import Fraction
from anystep.core.random import Draw
from anystep.flow.path import interpolate, velocity
from anystep.objectives import Batch, Networks, Objective, PhaseProgress, Query, Targets
from anystep.objectives.base import drop


@dataclass(frozen=True)
class NoisyTimes(Objective):
    """Regress the velocity x1 - x0 at times t = u^power, u uniform."""

    power: Annotated[float, Gt(0)] = 2.0
    """Above 1: more often at noisy times."""
    label_drop: Fraction = 0.1
    """Probability that a class label is replaced by "nothing given"."""

    def targets(self, networks: Networks, batch: Batch, draw: Draw, progress: PhaseProgress) -> Targets:
        """Map a batch to the velocities of its straight paths."""
        t = draw.uniform("time") ** self.power  # [B]
        x_t = interpolate(batch.x0, batch.x1, t)
        condition = drop(networks.online, batch.condition, self.label_drop, draw)
        query = Query(x_t, t, d=torch.zeros_like(t), condition=condition)
        return Targets(query, target=velocity(batch.x0, batch.x1), tag=torch.zeros_like(t, dtype=torch.long))


if __name__ == "__main__":
    run = Path(*sys.argv[1:] or [tempfile.mkdtemp()]).resolve() / "noisy_times"
    config = anystep.with_method(anystep.find_recipe("digits-flow_matching"), NoisyTimes())
    config = replace(config, training=replace(config.training, images=1_280, device="cpu"))
    anystep.train(config, run)
    sample = [sys.executable, "-m", "anystep", "sample", str(run), "--steps", "8", "--import", "write_a_method"]
    subprocess.run(sample, check=True, cwd=Path(__file__).parent)
