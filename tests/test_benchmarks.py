"""What the committed results say of the methods on digits: the orderings that P1's Table 1 has, at equal compute."""

import json
from pathlib import Path
from statistics import mean

import pytest

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "compare_digits.json"


@pytest.fixture(scope="module")
def distance() -> dict[str, dict[int, float]]:
    """Frechet distance by method and budget, the mean over seeds."""
    if not RESULTS.exists():
        pytest.skip(f"no {RESULTS.name} yet: anystep compare digits --json {RESULTS}")
    scores = json.loads(RESULTS.read_text())["scores"]
    found: dict[str, dict[int, list[float]]] = {}
    for row in scores:
        found.setdefault(row["method"], {}).setdefault(row["steps"], []).append(row["frechet"])
    return {method: {steps: mean(values) for steps, values in rows.items()} for method, rows in found.items()}


@pytest.mark.parametrize("other", ["diffusion", "flow_matching", "live_reflow", "consistency_training"])
def test_in_one_step_the_shortcut_model_is_the_best_single_run(
    distance: dict[str, dict[int, float]], other: str
) -> None:
    assert distance["shortcut"][1] < distance[other][1]


def test_in_many_steps_the_shortcut_model_stays_near_flow_matching(distance: dict[str, dict[int, float]]) -> None:
    assert distance["shortcut"][128] <= 1.2 * distance["flow_matching"][128]


def test_progressive_distillation_is_for_one_step(distance: dict[str, dict[int, float]]) -> None:
    one, *others = [value for _, value in sorted(distance["progressive_distillation"].items())]
    assert len(others) >= 2 and one < min(others)
