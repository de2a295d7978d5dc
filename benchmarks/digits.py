"""The digits table of the README: shortcut and flow matching at equal compute, several seeds.

python benchmarks/digits.py --seeds 0 1
"""

import argparse
import json
import statistics
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from anystep.evaluation.sweep import evaluate
from anystep.interchange.run import load_run
from anystep.recipes import find_recipe
from anystep.training.trainer import train
from record import write

METHODS = ("shortcut", "flow_matching")
METRICS = ("frechet", "precision", "recall", "accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-digits"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8, 32, 128])
    parser.add_argument("--num", type=int, default=4096)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in args.seeds:
        for method in METHODS:
            recipe = find_recipe(f"digits-{method}")
            config = replace(recipe, training=replace(recipe.training, seed=seed))
            run = args.out / f"{method}-{seed}"
            train(config, run, resume=True)
            timing = [json.loads(line) for line in (run / "timing.jsonl").read_text().splitlines()]
            scores = evaluate(
                load_run(run),
                config.data.open("train"),
                steps=args.steps,
                num=args.num,
                heldout=config.data.open("heldout"),
            )
            for score in scores:
                kept = {name: score[name] for name in ("method", "steps", *METRICS)}
                rows.append({"seed": seed, "training_seconds": timing[-1]["seconds"], **kept})
                print(
                    f"{seed} {method:<14} {score['steps']:>4}  {score['frechet']:.3f}  recall {score['recall']:.3f}",
                    flush=True,
                )
    protocol = {key: value for key, value in scores[-1]["protocol"].items() if key not in ("steps", "schedule", "code")}
    write("digits", protocol | {"network": asdict(recipe.network)}, {"rows": rows, "summary": summary(rows)})


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return mean and spread (largest minus smallest) over seeds of each method and budget."""
    result = []
    for method, steps in dict.fromkeys((row["method"], row["steps"]) for row in rows):
        same = [row for row in rows if (row["method"], row["steps"]) == (method, steps)]
        values = {name: [row[name] for row in same] for name in METRICS}
        means = {name: round(statistics.mean(v), 4) for name, v in values.items()}
        spread = round(max(values["frechet"]) - min(values["frechet"]), 4)
        result.append({"method": method, "steps": steps, "seeds": len(same), **means, "frechet_spread": spread})
    return result


if __name__ == "__main__":
    main()
