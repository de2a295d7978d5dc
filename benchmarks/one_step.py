"""Shortcut models in one step and in many: weights, couplings and shares at equal compute (docs/methods/one_step.md).

python benchmarks/one_step.py digits --seeds 10 11 12 --jobs 2
python benchmarks/one_step.py digits --variants paper default --seeds 10 --length 0.5
python benchmarks/one_step.py two_moons --jobs 2
"""

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from anystep.cli.train import parse_train
from anystep.comparison.processes import attempt_all
from anystep.comparison.trials import Trial, TrialEvent, stored_result
from anystep.objectives import OBJECTIVES
from anystep.recipes.method import WEIGHTED
from anystep.run.config import Config
from anystep.run.plan import forward_units, with_budget
from anystep.training.signals import StopRequest
from exact_flow import error
from record import RESULTS, write

HERE = Path(__file__).parent
Options = Mapping[str, str]

#: a weight of none until 40 % of the run, of its full value from 70 % on
RISING: Options = {"weight": "own_error", "weight.none-until": "0.4", "weight.full-from": "0.7"}
OT: Options = {"coupling.batches": "8", "coupling.per-class": ""}
LARGE: Options = {"objective.level": "large"}
EIGHTH: Options = {"objective.share": "0.125"}
QUARTER: Options = {"objective.share": "0.25"}
#: 1/8 of the examples until 40 % of the run, 1/4 from 70 % on
RISING_SHARE: Options = {**QUARTER, "objective.share-start": "0.125", "objective.share-change": "0.4 0.7"}
ALL: Options = {**RISING, **OT, **LARGE, **EIGHTH}

#: options of `anystep train`: of `FAMILY-shortcut_paper`, the shortcut model as published; of `FAMILY-shortcut` in
#: variants whose name begins with `default`, and of `FAMILY-METHOD` in those whose name begins with a method's
VARIANTS: Mapping[str, Options] = {
    "paper": {},
    "weight": RISING,
    "weight_from_the_start": {"weight": "own_error"},
    "weight_half_power": {**RISING, "weight.power": "0.5"},
    "weight_on_all": {**RISING, "weight": "one_step_weights:AllExamples", "import": "one_step_weights"},
    "weight_per_level": {**RISING, "weight": "level_average"},
    "weight_learned": {**RISING, "weight": "learned"},
    "weight_constant": {**RISING, "weight": "constant", "weight.factors": "8"},
    "ot": OT,
    "large": LARGE,
    "eighth": EIGHTH,
    "logit_normal": {"objective.time": "logit_normal"},
    "roll_out": {"objective.roll-out": "2"},
    "weight+ot": {**RISING, **OT},
    "all": ALL,
    "all+quarter": {**ALL, **QUARTER},
    "all+rising_share": {**ALL, **RISING_SHARE},
    "all+quarter+logit_normal": {**ALL, **QUARTER, "objective.time": "logit_normal"},
    "default": {},
    "default+ot64": {"coupling.batches": "64"},
    "default+more_share+ot64": {"objective.share": "0.375", "coupling.batches": "64"},
    "default+roll_out": {"objective.roll-out": "2"},
    "default+roll_out+state": {"objective.roll-out": "2", "objective.through-state": ""},
    "default+cap": {"weight.cap": "50"},
    "improved_shortcut": {},
    "improved_shortcut+eighth_guided": {"objective.guided-share": "0.125"},
    "improved_shortcut+few_scales": {"objective.guidance-max": "1.5", "objective.plain-share": "None"},
    "alpha_flow": {},
    "imm": {},
    "mean_flow": {},
    "flow_matching": {},
    "ict": {},
    "ict+low_rate": {"optimizer.lr": "1e-3"},
    "ict+lower_rate": {"optimizer.lr": "5e-4"},
}


#: variants without transport: of points in the plane, the true answer of every step is then known
PLANE = ("paper", "weight", "weight_from_the_start", "weight_half_power", "weight_on_all", "weight_per_level")
PLANE += ("weight_learned", "weight_constant", "large", "roll_out")


class Set(NamedTuple):
    """How the runs of a family of recipes are scored, and the variants that are trained if none are named."""

    metric: str = "frechet"
    num: int = 2048
    variants: tuple[str, ...] = tuple(VARIANTS)
    #: whether samples are compared with the exact flow
    exact: bool = False


SETS: Mapping[str, Set] = {
    "digits": Set(),
    "two_moons": Set("energy", 4096, PLANE, exact=True),
    "checkerboard": Set("energy", 4096, PLANE, exact=True),
}
STEPS = (1, 2, 3, 4, 7, 8, 32, 128)


def arguments(name: str, variant: str) -> list[str]:
    """Return the arguments of `anystep train` of a variant, without its length."""
    method = variant.partition("+")[0]
    made = {"default": "shortcut"}.get(method, method if method in OBJECTIVES else "shortcut_paper")
    options = (word for key, value in VARIANTS[variant].items() for word in (f"--{key}", *value.split()))
    return [f"{name}-{made}", *options]


def config(name: str, variant: str, length: float, seed: int) -> Config:
    """Return a variant's run at ``length`` times the cost of the recipe."""
    base = parse_train([f"{name}-shortcut_paper"])[1]
    _, made = parse_train(arguments(name, variant))
    made = with_budget(made, length * forward_units(base))
    if made.objective.name == "shortcut":
        made = replace(made, log=replace(made.log, gradients=made.log.every))
    return replace(made, training=replace(made.training, seed=seed))


def at_the_end(run: Path) -> dict[str, float]:
    """Return what the log has on the end of a run of a method that regresses velocities.

    The mean loss of flow examples over its last tenth. Over its last three tenths, in which a rising weight is full,
    the norm of the gradient of all self-consistency examples relative to that of the flow examples, and their cosine.
    """
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    last = records[-1]["step"]
    levels = [record["loss_by_level"] for record in records if record["step"] > (1 - 0.1) * last]
    result = {"flow_loss": statistics.mean(loss["flow"] for loss in levels)}
    if measured := [each for each in records if each["step"] > (1 - 0.3) * last and "gradient_norm" in each]:
        norms = [record["gradient_norm"] for record in measured]
        result["gradient_ratio"] = statistics.mean(norm["marked"] / norm["flow"] for norm in norms)
        result["gradient_cosine"] = statistics.mean(record["gradient_cosine"]["marked"] for record in measured)
    return {name: round(value, 4) for name, value in result.items()}


def rows(trial: Trial, variant: str, length: float, exact: bool) -> list[dict[str, Any]]:
    """Return a row per number of steps of a finished run; none of another."""
    about = {"variant": variant, "length": length, "seed": trial.seed, "images": trial.config.training.images}
    scores = stored_result(trial).scores
    velocities = trial.config.objective.name in (*WEIGHTED, "flow_matching")
    end = at_the_end(trial.run) if scores and velocities else {}
    metrics = ("frechet", "energy", "precision", "recall", "accuracy", "frechet_floor", "energy_floor")
    result = []
    for score in scores:
        row = {**about, "steps": score["steps"], **end}
        row |= {metric: round(score[metric], 6) for metric in metrics if score.get(metric) is not None}
        row |= {"error": round(error(trial.config.data, trial.run, score["steps"]), 4)} if exact else {}
        result.append(row)
    return result


def summary(found: Sequence[Mapping[str, Any]], distance: str) -> list[dict[str, Any]]:
    """Return mean and standard deviation over seeds of each variant, length and number of steps.

    Settings were chosen on the seeds below 10, ``trial``, and are judged on the others.
    """
    groups: dict[tuple[str, float, bool, int], list[Mapping[str, Any]]] = {}
    for row in found:
        groups.setdefault((row["variant"], row["length"], row["seed"] < 10, row["steps"]), []).append(row)
    result = []
    for (variant, length, trial, steps), same in groups.items():
        distances = [row[distance] for row in same]
        line = {"variant": variant, "length": length, "trial": trial, "steps": steps}
        line |= {"seeds": [row["seed"] for row in same]}
        line |= {distance: round(statistics.mean(distances), 6)}
        line |= {"deviation": round(statistics.stdev(distances), 6)} if len(same) > 1 else {}
        measured = ("recall", "error", "flow_loss", "gradient_ratio", "gradient_cosine", f"{distance}_floor")
        for metric in measured:
            values = [row[metric] for row in same if metric in row]
            line |= {metric: round(statistics.mean(values), 6)} if values else {}
        result.append(line)
    return result


def keep(name: str, new: Sequence[dict[str, Any]]) -> None:
    """Add rows to the set's JSON file, in place of those of the same run."""
    if not new:
        return
    path = RESULTS / f"one_step_{name}.json"
    kept = json.loads(path.read_text())["results"]["rows"] if path.exists() else []
    key = ("variant", "length", "seed", "steps")
    merged = {tuple(row[part] for part in key): row for row in [*kept, *new]}
    found = [merged[each] for each in sorted(merged)]
    variants = dict.fromkeys(row["variant"] for row in found)
    commands = {variant: shlex.join(["anystep", "train", *arguments(name, variant)]) for variant in variants}
    protocol = {"num": SETS[name].num, "distance": SETS[name].metric, "commands": commands}
    write(f"one_step_{name}", protocol, {"summary": summary(found, SETS[name].metric), "rows": found})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="default: all that are for the set")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--length", type=float, default=1.0, help="cost of the runs, 1: that of the recipe")
    parser.add_argument("--out", type=Path, default=Path("runs/one_step"))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; the cores are shared out among them")
    args = parser.parse_args()
    chosen = SETS[args.set]
    args.variants = args.variants or chosen.variants
    seeds, length = map(str, args.seeds), f"{args.length:g}"  # no path is recorded
    sys.argv = [sys.argv[0], args.set, "--variants", *args.variants, "--seeds", *seeds, "--length", length]
    names = dict[Path, str]()
    trials = []
    for seed in args.seeds:
        for variant in args.variants:
            run = args.out / args.set / f"{variant}-x{args.length:g}-seed{seed}"
            names[run] = variant
            made = config(args.set, variant, args.length, seed)
            trials.append(Trial(made, run, STEPS, chosen.num))

    def watch(trial: Trial, event: TrialEvent) -> None:
        if event.doing == "end":
            print(f"{trial.run.name}: {event.text}", flush=True)
            keep(args.set, rows(trial, names[trial.run], args.length, chosen.exact))

    for trial in trials:  # those that are finished are not attempted again
        keep(args.set, rows(trial, names[trial.run], args.length, chosen.exact))
    attempt_all(trials, watch, StopRequest(), args.jobs, ["one_step_weights"])


if __name__ == "__main__":
    main()
