"""Budgets that are no power of two: small steps at the data (small_last) or at the noise (small_first)?

python benchmarks/orders.py --runs runs/benchmark/shortcut-0 runs/benchmark/shortcut-1
"""

import argparse
from dataclasses import replace
from pathlib import Path

from anystep.evaluation.evaluate import evaluate
from anystep.model.load import load
from anystep.objectives import Shortcut
from anystep.run.facts import read_config
from record import write

ORDERS = ("small_last", "small_first")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="runs of a shortcut model")
    parser.add_argument("--steps", type=int, nargs="+", default=[3, 5, 6, 7, 12, 24])
    parser.add_argument("--num", type=int, default=4096)
    args = parser.parse_args()
    rows = []
    for run in args.runs:
        generator, data = load(run), read_config(run).data
        assert isinstance(generator.objective, Shortcut)
        for order in ORDERS:
            ordered = replace(generator, objective=replace(generator.objective, order=order))
            reference = data.open("train")
            scores = evaluate(ordered, reference, steps=args.steps, num=args.num, metrics=["frechet", "recall"])
            for score in scores:
                rows.append({"run": run.name, "order": order, **{k: score[k] for k in ("steps", "frechet", "recall")}})
                print(f"{run.name} {order:<12} {score['steps']:>4}  {score['frechet']:.3f}", flush=True)
    protocol = {key: value for key, value in scores[-1]["protocol"].items() if key not in ("steps", "schedule", "code")}
    write("orders", protocol, rows)


if __name__ == "__main__":
    main()
