"""What each part of an improved shortcut model adds to the seconds of a training update: measured.

A part is the digits recipe's run with and without it: the first three as `anystep compare` has them, each beside the
one before it, the others on an improved shortcut model. Both take turns in one process, a window of updates each, in
changing order; the ratio is that of the quickest turns, as whatever else a machine does only adds. Beside it stands
the ratio of processor time, every thread counted: what it would cost where no core is free.

guidance: an improved shortcut model beside a shortcut model, an eighth of the rows more through the moving average.
interval: the same targets with a factor of 0 or 1.
wavelet: the loss in whitened Haar bands.
coupling: optimal transport over K = 32 batches of 32 rows, 1,024 in all, solved in a thread beside the training. Its
next window is waited for before the other's turn, and the wait is counted as its own: nothing is hidden there.
second average: two averages beside one. A run has two whatever their decays, so the other one's update is left out.
profiles: two power averages beside none (`ema.profiles`); their copies on disk are not counted.

    python benchmarks/ism_cost.py
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from anystep.core.device import pick_device
from anystep.data import Dataset
from anystep.flow.coupling import CouplingConfig
from anystep.recipes import PARTS, find_recipe, with_method
from anystep.run.config import Config
from anystep.run.facts import DataFacts
from anystep.run.plan import segments
from anystep.training.coupling import CoupledExamples
from anystep.training.examples import DataExamples, Examples
from anystep.training.state import State
from anystep.training.trainer import update
from record import write

#: updates of a turn, one window of the coupling
UPDATES = 32
ROWS = 32


class Run:
    """A run that trains a turn of updates at a time."""

    def __init__(self, config: Config, data: Dataset, device: torch.device) -> None:
        facts = DataFacts.of(data)
        self.config, self.state, self.part = config, State(config, facts, device), segments(config)[0]
        plain, batch = DataExamples(data, facts.codec), config.training.batch
        self.examples: Examples = plain
        if config.coupling.batches:
            last = config.training.steps
            self.examples = CoupledExamples(plain, config.coupling, keys=self.state.keys, batch=batch, last=last)

    def turn(self) -> tuple[float, float]:
        """Return seconds of a turn and of processors, what it left to be solved beside the training included."""
        begun, busy = time.perf_counter(), time.process_time()
        for _ in range(UPDATES):
            update(self.state, self.examples, self.part)
        if self.state.device.type == "cuda":
            torch.cuda.synchronize()
        if isinstance(self.examples, CoupledExamples):
            for solved in self.examples._windows.values():
                solved.result()
        return time.perf_counter() - begun, time.process_time() - busy


@dataclass(frozen=True)
class Part:
    """The runs without and with a part; ``less`` is an average that the one without does not have."""

    without: Config
    whole: Config
    less: str | None = None


def added(name: str) -> Part:
    """A part of iSM, and the run without it: with those before it, or the shortcut model."""
    names, base = list(PARTS), find_recipe("digits-shortcut")
    before = names[: names.index(name)]
    return Part(with_method(base, before[-1]) if before else base, with_method(base, name))


def coupling() -> Part:
    """Batches of P2's pool; levels are random, as so few rows do not fill every one."""
    base = find_recipe("digits-improved_shortcut")
    objective = replace(base.objective, level="random")  # type: ignore[type-var]
    base = replace(base, objective=objective, training=replace(base.training, batch=ROWS))
    return Part(base, replace(base, coupling=CouplingConfig(batches=UPDATES)))


def second_average() -> Part:
    base = find_recipe("digits-improved_shortcut")
    return Part(base, base, less="evaluation")


def profiles() -> Part:
    base = find_recipe("digits-improved_shortcut")
    return Part(base, replace(base, ema=replace(base.ema, profiles=(0.05, 0.1))))


MEASURED: dict[str, Callable[[], Part]] = {
    "guidance": partial(added, "+guidance"),
    "interval": partial(added, "+interval"),
    "wavelet": partial(added, "+wavelet"),
    "coupling": coupling,
    "second average": second_average,
    "profiles": profiles,
}


def measure(part: Part, repeats: int, device: torch.device) -> dict[str, Any]:
    """Return seconds an update without and with a part; the first turn of each is not counted."""
    data = part.without.data.open("train")
    runs = {"without": Run(part.without, data, device), "with": Run(part.whole, data, device)}
    if part.less is not None:
        del runs["without"].state.averages[part.less]
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for n in range(repeats + 1):
        for name in list(runs)[:: 1 if n % 2 else -1]:  # neither is always the one that comes after the other
            took = runs[name].turn()
            if n:
                turns[name].append(took)
    found: dict[str, Any] = {"recipe": part.whole.recipe, "batch": part.whole.training.batch}
    for column, kind in enumerate(("seconds", "processor")):
        least = {name: min(turn[column] for turn in of) / UPDATES for name, of in turns.items()}
        found[kind] = {**least, "ratio": least["with"] / least["without"]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=MEASURED, default=list(MEASURED))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device, results = pick_device(args.device), []
    for name in args.parts:
        found = measure(MEASURED[name](), args.repeats, device)
        results.append({"part": name, **found})
        seconds, processor = found["seconds"], found["processor"]
        print(
            f"{name:<16} with / without = {seconds['ratio']:.3f} ({processor['ratio']:.3f} in processor time)", end=""
        )
        print(f", {seconds['without'] * 1e3:.1f} ms an update without")
    protocol = {"updates": UPDATES, "repeats": args.repeats, "device": str(device)}
    write("ism_cost", protocol, results)


if __name__ == "__main__":
    main()
