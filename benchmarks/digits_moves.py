"""What moves a shortcut model on digits: the recipe with one choice changed at a time, at equal compute.

python benchmarks/digits_moves.py --seeds 0 --jobs 2
"""

from collections.abc import Callable
from dataclasses import replace

import torch

from anystep.recipes import find_recipe
from anystep.run.config import Config
from digits import Trial, arguments, attempt_all, summary
from record import write


def objective(**changes: object) -> Callable[[Config], Config]:
    return lambda c: replace(c, objective=replace(c.objective, **changes))  # type: ignore[type-var]


#: the run of benchmarks/digits.py, scored beside the others
RECIPE = "the recipe"
#: name -> change; the compute of each is the recipe's
MOVES: dict[str, Callable[[Config], Config]] = {
    RECIPE: lambda c: c,
    "target EMA 0.99": lambda c: replace(c, ema=replace(c.ema, target=0.99)),
    "M 128 instead of 32": objective(M=128),
    "constant rate": lambda c: replace(c, optimizer=replace(c.optimizer, decay=0.0)),
    "share 1/4": objective(share=0.25),
}


def main() -> None:
    args = arguments(__doc__, [1, 4, 128]).parse_args()
    threads = max(1, torch.get_num_threads() // args.jobs)
    trials = []
    for name, move in MOVES.items():
        for seed in args.seeds:
            base = find_recipe("digits-shortcut")
            config = move(replace(base, training=replace(base.training, seed=seed)))
            images = round(base.training.images * base.objective.cost / config.objective.cost)
            config = replace(config, training=replace(config.training, images=images))
            folder = "shortcut" if name == RECIPE else name.replace(" ", "_").replace("/", "-")
            run = args.out / f"{folder}-{seed}"
            trials.append(Trial(name, config, run, tuple(args.steps), args.num, threads))
    rows, protocol = attempt_all(trials, args.jobs)
    write("digits_moves", protocol | {"threads_a_run": threads}, {"summary": summary(rows), "rows": rows})


if __name__ == "__main__":
    main()
