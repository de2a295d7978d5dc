"""Write a metric of your own.

    python examples/write_a_metric.py [FOLDER]

How far the mean and the deviation of all pixels are from the data's. A metric is a frozen dataclass: its fields are
parameters, and go into the protocol of each score. A line in `METRICS` gives it a name for the command line too.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

import anystep
from anystep.evaluation.metrics import METRICS
from anystep.evaluation.metrics.base import Kept, Metric


@dataclass(frozen=True)
class Brightness(Metric):
    """Distance of the mean over all elements (suffix "contrast": of the deviation) from that of the data."""

    title = "Brightness"
    better = "lower"
    needs = frozenset({"rows"})

    order: Literal[1, 2] = 1
    """1: absolute difference; 2: squared."""

    def score(self, real: Kept, drawn: Kept, prepared: None) -> dict[str, float]:
        """Compare the features of real examples with those of samples, float64 [n, F] each."""
        pairs = {"": np.mean, "contrast": np.std}
        return {name: float(abs(of(real.rows) - of(drawn.rows)) ** self.order) for name, of in pairs.items()}


METRICS["brightness"] = Brightness()

if __name__ == "__main__":
    run = Path(*sys.argv[1:] or [tempfile.mkdtemp()]).resolve() / "brightness"
    config = anystep.find_recipe("digits-shortcut")
    anystep.train(replace(config, training=replace(config.training, images=1_280, device="cpu")), run)
    data = config.data.open("train")
    for record in anystep.evaluate(anystep.load(run), data, steps=[1, 4], num=128, metrics=[Brightness(order=2)]):
        print(record["steps"], record["brightness"], record["brightness_contrast"])
    options = ["--steps", "1", "4", "--num", "128", "--metrics", "brightness", "--import", "write_a_metric"]
    evaluate = [sys.executable, "-m", "anystep", "evaluate", str(run), *options]
    subprocess.run(evaluate, check=True, cwd=Path(__file__).parent)
