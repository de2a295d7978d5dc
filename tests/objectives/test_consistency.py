"""What a person is refused by consistency training, plain and improved."""

import math

import pytest
from tests.guidance import scales

from anystep.objectives.consistency_training import ConsistencyTraining
from anystep.objectives.ict import ImprovedConsistencyTraining


@pytest.mark.parametrize("kind", [ConsistencyTraining, ImprovedConsistencyTraining])
def test_guidance_needs_dropped_labels(kind: type[ConsistencyTraining] | type[ImprovedConsistencyTraining]) -> None:
    assert scales(kind(), kind().schedule(2), 2.0) == [2.0, 2.0]
    with pytest.raises(ValueError, match=r"which was never trained: train with objective\.label_drop 0\.1"):
        scales(kind(label_drop=0.0), kind().schedule(2), 2.0)


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [("M", 12, "a power of two"), ("initial_bins", 0, "at least 1"), ("noise_min", 0.0, "greater than 0"),
     ("noise_max", 0.001, "greater than noise_min"), ("rho", math.inf, "greater than 0 and finite"),
     ("log_mean", math.nan, "finite"), ("log_std", -1.0, "greater than 0"), ("huber", 0.0, "greater than 0"),
     ("label_drop", 1.5, r"in \[0, 1\]")],
)  # fmt: skip
def test_impossible_hyper_parameters_are_named(field: str, value: float, rule: str) -> None:
    with pytest.raises(ValueError, match=rf"objective\.{field} must be {rule}"):
        ImprovedConsistencyTraining(**{field: value})  # type: ignore[arg-type]
