"""`Shortcut` and `FlowMatching` make the regression that the released code makes, given the draws that it made."""

import pytest
import torch
from tests.reference.arrange import Recorded, arrange
from tests.reference.recorded import (
    ATOL,
    floats,
    image,
    integers,
    load,
    meta,
    network,
    recorded_draw,
    step_size,
    under,
)

from anystep.objectives import Batch, FlowMatching, Networks, PhaseProgress, Shortcut

SHORTCUT = load("targets_shortcut")
NAIVE = load("targets_baselines")
PARAMS = load("params_h32")
CASES = [name.removesuffix("/meta") for name in SHORTCUT if name.endswith("/meta")]
START = PhaseProgress(0, 700)


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=ATOL, rtol=0)


def objective(case: str) -> Shortcut:
    flags = meta(SHORTCUT, case)["model"]
    return Shortcut(
        share=1 / flags["bootstrap_every"],
        # a level bias and a forced level are not ours: their levels are given as if drawn at random
        level="random" if case in ("every4_ema1_cfg1_dtbias", "force_t_dt") else "equal",
        label_drop=flags["class_dropout_prob"],
        guidance=flags["cfg_scale"] if flags["bootstrap_cfg"] else 1.0,
        clip=4.0,
        sigma_min=1e-5,
    )


def recorded(case: str) -> Recorded:
    arrays = under(SHORTCUT, case)
    total = len(arrays["labels_in"])
    images = image(SHORTCUT["images"])[:total] * float(arrays["image_scale"])
    drawn = under(arrays, "draw")
    result = Recorded.of(
        images,
        integers(arrays["labels_in"]),
        drawn,
        image(SHORTCUT[f"shared/x0_flow_b{total}"]),
        arrays["out/dt_base"],
    )
    if arrays["force_t"] >= 0:
        forced = {
            name: torch.full_like(getattr(result, name), float(arrays["force_t"])) for name in ("boot_t", "flow_t")
        }
        return Recorded(**{**vars(result), **forced})
    return result


@pytest.mark.parametrize("case", CASES)
def test_shortcut_targets(case: str) -> None:
    online = network(PARAMS, "params", side=8)
    target = network(PARAMS, "params_ema", side=8) if meta(SHORTCUT, case)["model"]["bootstrap_ema"] else online
    method = objective(case)
    batch, draw, theirs = arrange(recorded(case), method)
    ours = method.targets(Networks(online, target), batch, draw, START)

    out = under(SHORTCUT, f"{case}/out")
    torch.testing.assert_close(ours.query.t, floats(out["t"])[theirs], atol=0, rtol=0)
    torch.testing.assert_close(ours.query.d, step_size(out["dt_base"])[theirs], atol=0, rtol=0)
    assert ours.query.condition is not None
    torch.testing.assert_close(ours.query.condition, integers(out["labels_out"])[theirs])
    full = "x_t" in out  # otherwise only the bootstrap rows were stored
    suffix, mine = ("", torch.ones_like(theirs, dtype=torch.bool)) if full else ("_boot", ours.query.d > 0)
    close(ours.query.x_t[mine], image(out[f"x_t{suffix}"])[theirs[mine]])
    close(ours.target[mine], image(out[f"v_t{suffix}"])[theirs[mine]])


@pytest.mark.parametrize("case", ["naive", "naive_latent_pairs_reflow"])
def test_flow_matching_targets(case: str) -> None:
    arrays = under(NAIVE, case)
    if case == "naive":
        x0, x1 = image(arrays["draw/x0"]), image(NAIVE["images"])
    else:
        x0, x1 = image(NAIVE["images_latent_pair"]).chunk(2, dim=1)
    batch = Batch(x1, x0, integers(arrays["labels_in"]))
    draw = recorded_draw(
        time=(floats(arrays["draw/t_int"]) + 0.5) / 128,
        label_drop=torch.where(torch.from_numpy(arrays["draw/label_drop"]), 0.0, 0.999),
    )
    method = FlowMatching(label_drop=meta(NAIVE, case)["model"]["class_dropout_prob"], sigma_min=1e-5)
    ours = method.targets(Networks(network(PARAMS, "params", side=8)), batch, draw, START)
    torch.testing.assert_close(ours.query.t, floats(arrays["out/t"]), atol=0, rtol=0)
    assert ours.query.condition is not None
    torch.testing.assert_close(ours.query.condition, integers(arrays["out/labels_out"]))
    close(ours.query.x_t, image(arrays["out/x_t"]))
    close(ours.target, image(arrays["out/v_t"]))
    assert not ours.query.d.any()


def test_all_recorded_cases_are_here() -> None:
    assert len(CASES) == 10
