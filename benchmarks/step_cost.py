"""What a shortcut step costs beside a flow-matching step: measured, and by arithmetic.

Forward 1, backward 2, self-consistency targets 2 share: (3 + 2 share) / 3 = 1.167 at share 1/4 (P1 footnote 2). The
two methods take turns in one process, so that a busy machine slows both; the ratio is of the medians.

    python benchmarks/step_cost.py
"""

import argparse
import statistics
import time
from dataclasses import replace

import torch

from anystep.core.device import pick_device
from anystep.data import Dataset
from anystep.networks import DiTConfig, NetworkConfig
from anystep.objectives import FlowMatching, Objective, Shortcut
from anystep.recipes import find_recipe
from anystep.run.config import Config
from anystep.run.facts import DataFacts
from anystep.run.plan import segments
from anystep.training.examples import DataExamples
from anystep.training.state import State
from anystep.training.trainer import update
from record import write

#: name -> network and share; None takes the digits recipe's own network
CASES: dict[str, tuple[NetworkConfig | None, float]] = {
    "digits recipe, share 1/4": (None, 0.25),
    "digits recipe, share 1/8": (None, 0.125),
    "DiT 384 x 4, patch 2, share 1/4": (DiTConfig(hidden=384, depth=4, heads=6, patch=2), 0.25),
}


def step_seconds(states: dict[str, State], facts: DataFacts, data: Dataset, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each update, the methods taking turns; three updates each are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in states}
    examples = DataExamples(data, facts.codec)
    for n in range(repeats + 3):
        for name, state in states.items():
            begun = time.perf_counter()
            update(state, examples, segments(state.config)[0])
            if state.device.type == "cuda":
                torch.cuda.synchronize()
            if n >= 3:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    base: Config = find_recipe("digits-shortcut")
    data, device, results = base.data.open("train"), pick_device(args.device), []
    facts = DataFacts.of(data)
    for case, (network, share) in CASES.items():
        config = base if network is None else replace(base, network=network)
        methods: dict[str, Objective] = {"flow_matching": FlowMatching(), "shortcut": replace(Shortcut(), share=share)}
        states = {name: State(replace(config, objective=method), facts, device) for name, method in methods.items()}
        seconds = step_seconds(states, facts, data, args.repeats)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        ratio = medians["shortcut"] / medians["flow_matching"]
        predicted = methods["shortcut"].cost
        results.append({"case": case, "seconds": medians, "ratio": ratio, "predicted": predicted})
        print(f"{case:<34} shortcut / flow matching = {ratio:.3f} measured, {predicted:.3f} by arithmetic")
    write("step_cost", {"batch": base.training.batch, "repeats": args.repeats, "device": str(device)}, results)


if __name__ == "__main__":
    main()
