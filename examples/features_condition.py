"""Condition a model on a feature vector, and guide it.

    python examples/features_condition.py [FOLDER]

Points that lie around a place which is given, in the data's own unit. Training leaves the feature out now and then
(`label_drop`), so that samples can be drawn without it too, and guided: W > 1 makes more of what is given.
"""

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

import anystep

IN_A_NEW_PROCESS = """
import sys, numpy as np, anystep
generator = anystep.load(sys.argv[1], device="cpu")
for guidance in (1.0, 2.0):
    place = np.tile([1200.0, 600.0], (500, 1))  # as a person has it: no normalising
    x = generator.decode(generator.generate(steps=8, num=500, condition=place, guidance=guidance))
    print(f"W = {guidance}: mean {x.mean(0).round(2)}, deviation {x.std(0).round(2)}")
x = generator.decode(generator.generate(steps=8, num=500))
print(f"not given: mean {x.mean(0).round(2)}, deviation {x.std(0).round(2)}")
"""


def write_data(path: Path) -> None:
    """Write 4,096 points, vectors [n, 2], and the place that each lies around, place [n, 2]."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4096, 2))
    np.savez(path, vectors=2 * z + rng.normal(size=(4096, 2)), place=[1000, 600] + z * [200, 100])


if __name__ == "__main__":
    folder = Path(*sys.argv[1:] or [tempfile.mkdtemp()]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write_data(folder / "points.npz")
    config = anystep.with_method(anystep.find_recipe("vectors-shortcut"), anystep.FlowMatching(label_drop=0.2))
    data = anystep.Npz(
        path=str(folder / "points.npz"), images="vectors", labels=None, conditions=("place",), heldout=0.1
    )
    training = replace(config.training, images=51_200, batch=256, device="cpu")
    optimizer = replace(config.optimizer, lr=4e-3, warmup=2560)
    network = replace(config.network, hidden=64, depth=2)
    config = replace(config, data=data, training=training, optimizer=optimizer, network=network)
    anystep.train(config, folder / "place")
    subprocess.run([sys.executable, "-c", IN_A_NEW_PROCESS, str(folder / "place")], check=True)
