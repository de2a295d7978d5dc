"""P1's Figure 2 as an effect: one flow-matching step lands on the mean of the data, one shortcut step on its modes.

Trains both methods on eight Gaussians on a ring (about a minute on two CPU cores), prints the energy distance to the
data at 1, 2, 4 and 128 steps, and draws the samples.

    python examples/two_d.py --out runs/two_d
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

import anystep
from anystep.evaluation.metrics import energy_distance
from anystep.report.scatter import scatter

STEPS = (1, 2, 4, 128)
METHODS = ("flow_matching", "shortcut")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/two_d"))
    parser.add_argument("--data", default="eight_gaussians", choices=["eight_gaussians", "two_moons", "checkerboard"])
    parser.add_argument("--images", type=int, default=None, help="length of each run; default as the recipe")
    parser.add_argument("--num", type=int, default=2000, help="samples drawn at each budget")
    args = parser.parse_args()

    points: dict[str, dict[int, np.ndarray]] = {}
    scores: dict[str, dict[int, float]] = {}
    for method in METHODS:
        config = anystep.find_recipe(f"{args.data}-{method}")
        if args.images is not None:
            config = replace(config, training=replace(config.training, images=args.images))
        run = args.out / method
        anystep.train(config, run, resume=True)

        generator = anystep.load_run(run)
        data = config.data.open("heldout")
        real = data.read(np.arange(args.num))
        points[method], scores[method] = {}, {}
        for steps in STEPS:
            drawn = generator.decode(generator.generate(steps=steps, seed=0, index=range(args.num)))
            scores[method][steps] = energy_distance(real, drawn)
            points[method][steps] = drawn

    print("energy distance to held-out data")
    print("steps          " + "".join(f"{n:>9}" for n in STEPS))
    for method, row in scores.items():
        print(f"{method:<15}" + "".join(f"{value:9.4f}" for value in row.values()))
    (args.out / "scores.json").write_text(json.dumps({"data": args.data, "energy_distance": scores}, indent=2) + "\n")
    scatter(points, data=real).savefig(args.out / "two_d.png", dpi=150)
    print(args.out / "two_d.png")


if __name__ == "__main__":
    main()
