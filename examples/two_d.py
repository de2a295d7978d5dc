"""P1's Figure 2 as an effect: one flow-matching step lands on the mean of the data, one shortcut step on its modes.

Trains both methods on eight Gaussians on a ring, prints the energy distance to held-out data at 1, 2, 4 and 128 steps,
and draws the samples.

    python examples/two_d.py --out runs/two_d
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

import anystep
from anystep.evaluation.metrics.energy import energy_distance
from anystep.figures.scatter import scatter

STEPS = (1, 2, 4, 128)
METHODS = ("flow_matching", "shortcut")

Scores = dict[str, dict[int, float]]


def compare(data: str, images: int | None, num: int, out: Path) -> Scores:
    """Train both methods, draw ``out``/two_d.png, return the energy distance of each method at each budget."""
    points: dict[str, dict[int, np.ndarray]] = {}
    scores: Scores = {}
    for method in METHODS:
        config = anystep.find_recipe(f"{data}-{method}")
        if images is not None:
            config = replace(config, training=replace(config.training, images=images))
        anystep.train(config, out / method, resume=True)
        generator = anystep.load(out / method)
        real = config.data.open("heldout").read(np.arange(num))
        points[method], scores[method] = {}, {}
        for steps in STEPS:
            drawn = generator.decode(generator.generate(steps=steps, seed=0, index=range(num)))
            scores[method][steps] = energy_distance(real, drawn)
            points[method][steps] = drawn
    scatter(points, data=real.numpy()).savefig(out / "two_d.png", dpi=150)
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/two_d"))
    parser.add_argument("--data", default="eight_gaussians", choices=["eight_gaussians", "two_moons", "checkerboard"])
    parser.add_argument("--images", type=int, default=None, help="length of each run; default as the recipe")
    parser.add_argument("--num", type=int, default=2000, help="samples drawn at each budget")
    args = parser.parse_args()
    scores = compare(args.data, args.images, args.num, args.out)
    print("energy distance to held-out data")
    print("steps          " + "".join(f"{n:>9}" for n in STEPS))
    for method, row in scores.items():
        print(f"{method:<15}" + "".join(f"{value:9.4f}" for value in row.values()))
    (args.out / "scores.json").write_text(json.dumps({"data": args.data, "energy_distance": scores}, indent=2) + "\n")
    print(args.out / "two_d.png")


if __name__ == "__main__":
    main()
