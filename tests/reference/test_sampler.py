"""We draw what the released sampler draws from the same noise: shortcut, flow-matching and consistency models."""

import pytest
import torch
from tests.reference.recorded import ATOL, ATOL_128, WithoutStep, image, integers, load, meta, network

from anystep.flow.ladder import Schedule, Step, instantaneous_schedule, shortcut_schedule
from anystep.flow.query import Network
from anystep.flow.sampling import sample

FILE = load("sampler")
PARAMS = load("params_h32")
CASES = [
    name.removesuffix("/meta") for name in FILE if name.endswith("/meta") and name.startswith(("shortcut_", "naive_"))
]


CONSISTENCY = [name.removesuffix("/meta") for name in FILE if name.endswith("/meta") and "consistency" in name]


def schedule(case: str, steps: int) -> Schedule:
    """Return the released sampler's steps: all equal, the network told d = 2^-floor(log2 N)."""
    if case == "shortcut_n3_cfg1.0":  # no power of two: our own budget would be dyadic
        return [Step(n / 3, 1 / 3, d=1 / 2) for n in range(3)]
    return instantaneous_schedule(steps) if case.startswith("naive") else shortcut_schedule(steps)


@pytest.mark.parametrize("case", CASES)
def test_same_noise_same_samples(case: str) -> None:
    flags = meta(FILE, case)
    model: Network = network(PARAMS, "params_ema" if flags["use_ema"] else "params", side=8)
    if flags["ignore_dt"]:
        model = WithoutStep(model)  # type: ignore[arg-type]
    drawn = sample(
        model,
        image(FILE["start_noise"]),
        steps=schedule(case, flags["steps"]),
        condition=integers(FILE["labels"]),
        guidance=flags["cfg_scale"],
    )
    atol = ATOL_128 if flags["steps"] == 128 else ATOL
    torch.testing.assert_close(drawn, image(FILE[f"{case}/x"]), atol=atol, rtol=0)


@pytest.mark.parametrize("case", CONSISTENCY)
def test_same_noises_same_consistency_samples(case: str) -> None:
    """Their times are n/N too, and their n-th noise, from 0, follows step n: the last is never used."""
    flags, renoise = meta(FILE, case), FILE[f"{case}/renoise"]
    drawn = sample(
        WithoutStep(network(PARAMS, "params", side=8)),  # type: ignore[arg-type]
        image(FILE["start_noise"]),
        steps=instantaneous_schedule(flags["steps"]),
        condition=integers(FILE["labels"]),
        renoise=lambda n: image(renoise[n]),
    )
    torch.testing.assert_close(drawn, image(FILE[f"{case}/x"]), atol=ATOL, rtol=0)


def test_all_recorded_cases_are_here() -> None:
    """Those of live reflow are drawn in test_baselines.py."""
    live = {f"livereflow_n{steps}_cfg1.0" for steps in (1, 4)}
    assert {name.removesuffix("/meta") for name in FILE if name.endswith("/meta")} == {*CASES, *CONSISTENCY, *live}
    assert (len(CASES), len(CONSISTENCY)) == (22, 3)
