"""The digits table of the README: shortcut and flow matching at equal compute, several seeds.

python benchmarks/digits.py --seeds 0 1 --jobs 2
"""

import argparse
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from anystep.evaluation.evaluate import evaluate
from anystep.model.load import load
from anystep.recipes import find_recipe
from anystep.run.config import Config
from anystep.training.trainer import train
from record import write

METRICS = ("frechet", "precision", "recall", "accuracy")


@dataclass(frozen=True)
class Trial:
    """One run to train (or go on with) and to score."""

    name: str
    config: Config
    run: Path
    steps: tuple[int, ...]
    num: int
    threads: int


def attempt(trial: Trial) -> list[dict[str, Any]]:
    """Train and score; returns one row a budget."""
    torch.set_num_threads(trial.threads)
    train(trial.config, trial.run, resume=True)
    data = trial.config.data
    scores = evaluate(
        load(trial.run), data.open("train"), steps=trial.steps, num=trial.num, heldout=data.open("heldout")
    )
    rows = []
    for score in scores:
        kept = {name: score[name] for name in ("method", "steps", *METRICS)}
        rows.append({"name": trial.name, "seed": trial.config.training.seed, **kept})
        print(f"{trial.run.name:<24} {score['steps']:>4} {score['frechet']:8.3f} {score['recall']:8.3f}", flush=True)
    protocol = {key: value for key, value in scores[0]["protocol"].items() if key not in ("steps", "schedule", "code")}
    return [row | {"protocol": protocol} for row in rows]


def attempt_all(trials: Sequence[Trial], jobs: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows of all trials, ``jobs`` at a time, and the protocol that they share."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        rows = [row for part in pool.map(attempt, trials) for row in part]
    protocols = [row.pop("protocol") for row in rows]
    return rows, protocols[0]


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return mean and spread (largest minus smallest) over seeds of each name and budget."""
    result = []
    for name, steps in dict.fromkeys((row["name"], row["steps"]) for row in rows):
        same = [row for row in rows if (row["name"], row["steps"]) == (name, steps)]
        means = {metric: round(statistics.mean(row[metric] for row in same), 4) for metric in METRICS}
        frechet = [row["frechet"] for row in same]
        spread = round(max(frechet) - min(frechet), 4)
        result.append({"name": name, "steps": steps, "seeds": len(same), **means, "frechet_spread": spread})
    return result


def arguments(description: str | None, steps: Sequence[int]) -> argparse.ArgumentParser:
    """Return the options that the digits benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, nargs="+", default=list(steps))
    parser.add_argument("--num", type=int, default=4096)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; the cores are shared out among them")
    return parser


def main() -> None:
    args = arguments(__doc__, [1, 2, 4, 8, 32, 128]).parse_args()
    threads = max(1, torch.get_num_threads() // args.jobs)
    trials = []
    for seed in args.seeds:
        for method in ("shortcut", "flow_matching"):
            config = find_recipe(f"digits-{method}")
            config = replace(config, training=replace(config.training, seed=seed))
            trials.append(Trial(method, config, args.out / f"{method}-{seed}", tuple(args.steps), args.num, threads))
    rows, protocol = attempt_all(trials, args.jobs)
    write("digits", protocol | {"threads_a_run": threads}, {"summary": summary(rows), "rows": rows})


if __name__ == "__main__":
    main()
