"""`ConsistencyTraining` makes the regression that the released code makes, given the draws that it made."""

import pytest
import torch
from tests.reference.recorded import ATOL, WithoutStep, floats, image, integers, load, meta, network, recorded_draw

from anystep.flow.query import PhaseProgress
from anystep.objectives.base import Batch, Networks
from anystep.objectives.consistency_training import ConsistencyTraining

FILE = load("targets_baselines")
PARAMS = load("params_h32")
CASES = [name.removesuffix("/meta") for name in FILE if name.startswith("consistency_training") and "/meta" in name]


@pytest.mark.parametrize("case", CASES)
def test_consistency_training_targets(case: str) -> None:
    """Theirs at update k of K has 2^j bins, j = 7k // K: log2 M stages. Ours has one more, and is told to be in j."""
    flags, drawn = meta(FILE, case), integers(FILE[f"{case}/draw/t_int"])
    stage = 7 * flags["step"] // flags["max_steps"]
    assert stage == int(FILE[f"{case}/out/dt_base"])
    x1, x0, label = image(FILE["images"]), image(FILE["shared/x0_2key"]), integers(FILE[f"{case}/labels_in"])
    method = ConsistencyTraining(sigma_min=1e-5)
    draw = recorded_draw(time=(drawn + 0.5) / 2**stage, label_drop=torch.ones(len(x1)))  # their labels are all kept
    online, target = (WithoutStep(network(PARAMS, name, side=8)) for name in ("params", "params_ema"))
    ours = method.targets(Networks(online, target), Batch(x1, x0, label), draw, PhaseProgress(stage, 8))  # type: ignore[arg-type]
    torch.testing.assert_close(ours.query.t, floats(FILE[f"{case}/out/t"]), atol=0, rtol=0)
    assert ours.query.condition is not None
    torch.testing.assert_close(ours.query.condition, integers(FILE[f"{case}/out/labels_out"]))
    torch.testing.assert_close(ours.query.x_t, image(FILE[f"{case}/out/x_t"]), atol=ATOL, rtol=0)
    torch.testing.assert_close(ours.target, image(FILE[f"{case}/out/v_t"]), atol=ATOL, rtol=0)
    assert not ours.query.d.any()


def test_all_recorded_cases_are_here() -> None:
    assert len(CASES) == 3
