"""Scores of a run in bfloat16 beside the same run in float32: what `training.precision` auto changes where it applies.

python benchmarks/precision.py --jobs 2
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from anystep.comparison.processes import attempt_all
from anystep.comparison.trials import Trial
from anystep.recipes import find_recipe
from anystep.training.signals import StopRequest
from record import write

STEPS, NUM = (1, 4, 32), 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, default=Path("runs/precision"))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; the cores are shared out among them")
    args = parser.parse_args()
    sys.argv = [sys.argv[0], "--images", str(args.images), "--seeds", *map(str, args.seeds)]  # no path is recorded
    config = find_recipe("digits-shortcut")
    trials = []
    for seed in args.seeds:
        for precision in ("float32", "bfloat16"):
            training = replace(config.training, images=args.images, seed=seed, precision=precision)
            run = args.out / f"{precision}-seed{seed}"
            trials.append(Trial(replace(config, training=training), run, STEPS, NUM))
    results = attempt_all(trials, lambda trial, event: None, StopRequest(), args.jobs)
    rows = [
        {"precision": result.trial.config.training.precision, "seed": result.trial.seed, "steps": score["steps"]}
        | {metric: round(score[metric], 4) for metric in ("frechet", "recall", "accuracy", "frechet_floor_deviation")}
        for result in results
        for score in result.scores
    ]
    write("precision", {"recipe": "digits-shortcut", "images": args.images, "num": NUM}, rows)


if __name__ == "__main__":
    main()
