"""What the committed results say of the methods on digits: the orderings that P1's Table 1 has, at equal compute."""

import json
from pathlib import Path
from statistics import mean

import pytest

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "compare_digits.json"


@pytest.fixture(scope="module")
def distance() -> dict[str, dict[int, float]]:
    """Frechet distance by method and budget, the mean over seeds."""
    scores = json.loads(RESULTS.read_text())["scores"]
    found: dict[str, dict[int, list[float]]] = {}
    for row in scores:
        found.setdefault(row["method"], {}).setdefault(row["steps"], []).append(row["frechet"])
    return {method: {steps: mean(values) for steps, values in rows.items()} for method, rows in found.items()}


@pytest.mark.parametrize("other", ["diffusion", "flow_matching", "live_reflow"])
def test_in_one_step_these_are_behind_the_shortcut_model(distance: dict[str, dict[int, float]], other: str) -> None:
    assert distance["shortcut"][1] < distance[other][1]


@pytest.mark.parametrize("steps", [4, 8, 32, 128])
@pytest.mark.parametrize("other", ["consistency_training", "consistency_distillation", "reflow", "live_reflow"])
def test_from_four_steps_on_these_are_behind_it_too(
    distance: dict[str, dict[int, float]], other: str, steps: int
) -> None:
    """In one step the first three are ahead of it here, which P1 has the other way round: docs/methods/README.md."""
    assert distance["shortcut"][steps] < distance[other][steps]


@pytest.mark.parametrize("steps", [4, 8])
@pytest.mark.parametrize("other", ["flow_matching", "diffusion", "progressive_distillation"])
def test_in_four_and_eight_steps_it_is_the_best_of_the_papers_methods(
    distance: dict[str, dict[int, float]], other: str, steps: int
) -> None:
    assert distance["shortcut"][steps] < distance[other][steps]


def test_in_many_steps_the_shortcut_model_stays_near_flow_matching(distance: dict[str, dict[int, float]]) -> None:
    assert distance["shortcut"][128] <= 1.2 * distance["flow_matching"][128]


def test_progressive_distillation_is_for_one_step(distance: dict[str, dict[int, float]]) -> None:
    one, *others = [value for _, value in sorted(distance["progressive_distillation"].items())]
    assert len(others) >= 2 and one < min(others)
