"""The distillation baselines make the regression that the released code makes, given the draws that it made."""

from typing import Any

import pytest
import torch
from tests.reference.recorded import (
    ATOL,
    RecordedDraw,
    WithoutStep,
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
from torch import Tensor

from anystep.flow.ladder import shortcut_schedule
from anystep.flow.path import expand
from anystep.flow.query import PhaseProgress
from anystep.flow.sampling import sample
from anystep.objectives.base import Batch, Networks, Targets
from anystep.objectives.consistency_distillation import ConsistencyDistillation
from anystep.objectives.live_reflow import LiveReflow
from anystep.objectives.progressive_distillation import ProgressiveDistillation
from anystep.objectives.reflow import Reflow

FILE = load("targets_baselines")
SAMPLER = load("sampler")
PARAMS = load("params_h32")
CASES = [name.removesuffix("/meta") for name in FILE if name.endswith("/meta")]
PROGRESSIVE = [case for case in CASES if case.startswith("progressive")]
LIVE = [case for case in CASES if case.startswith("livereflow")]
SIGMA_MIN = 1e-5
START = PhaseProgress(0, 700)


def without_step(prefix: str) -> WithoutStep:
    return WithoutStep(network(PARAMS, prefix, side=8))


def unlabelled_choice(dropped: Any) -> Tensor:
    """A uniform draw below every probability where the label was dropped, and above it where it was not."""
    return torch.where(torch.from_numpy(dropped), 0.0, 0.9999)


def agrees(ours: Targets, case: str, rows: Tensor | None = None) -> None:
    """Our regression is the recorded one, of which row i of ours is row ``rows[i]``."""
    out = under(FILE, f"{case}/out")
    rows = torch.arange(len(out["t"])) if rows is None else rows
    assert ours.query.condition is not None
    torch.testing.assert_close(ours.query.t, floats(out["t"])[rows], atol=0, rtol=0)
    torch.testing.assert_close(ours.query.condition, integers(out["labels_out"])[rows])
    torch.testing.assert_close(ours.query.x_t, image(out["x_t"])[rows], atol=ATOL, rtol=0)
    torch.testing.assert_close(ours.target, image(out["v_t"])[rows], atol=ATOL, rtol=0)


@pytest.mark.parametrize("case", PROGRESSIVE)
def test_progressive_distillation_targets(case: str) -> None:
    flags, arrays = meta(FILE, case), under(FILE, case)
    phase = flags["step"] // (flags["max_steps"] // 7)
    method = ProgressiveDistillation(
        guidance=flags["model"]["cfg_scale"] if flags["model"]["bootstrap_cfg"] else 1.0, clip=4.0, sigma_min=SIGMA_MIN
    )
    teacher = without_step("teacher_params_ema" if flags["model"]["bootstrap_ema"] else "teacher_params")
    draw = recorded_draw(time=(floats(arrays["draw/t_int"]) + 0.5) * 2 ** (phase + 1) / 128)
    batch = Batch(image(FILE["images"]), image(FILE["shared/x0_2key"]), integers(arrays["labels_in"]))
    ours = method.targets(Networks(teacher, teacher=teacher), batch, draw, PhaseProgress(50, 100, phase))
    agrees(ours, case)
    # the step that they call log2(1/d), and that an ignoring network never sees
    (d,) = set(torch.exp2(-floats(arrays["out/dt_base"])).tolist())
    assert {method.tags[tag] for tag in ours.tag.tolist()} == {"1" if d == 1 else f"1/{round(1 / d)}"}


def test_consistency_distillation_targets() -> None:
    case = "consistency_distillation"
    arrays = under(FILE, case)
    draw = recorded_draw(time=(floats(arrays["draw/t_int"]) + 0.5) / 128)
    batch = Batch(image(FILE["images"]), image(FILE["shared/x0_2key"]), integers(arrays["labels_in"]))
    online, average, teacher = (without_step(name) for name in ("params", "params_ema", "teacher_params_ema"))
    method = ConsistencyDistillation(sigma_min=SIGMA_MIN)
    agrees(method.targets(Networks(online, average, teacher), batch, draw, START), case)


@pytest.mark.parametrize("case", ["naive", "naive_latent_pairs_reflow"])
def test_reflow_targets(case: str) -> None:
    """Its second phase is their flow matching on latents that were stored with their noise."""
    arrays = under(FILE, case)
    if case == "naive":
        x0, x1 = image(arrays["draw/x0"]), image(FILE["images"])
    else:
        x0, x1 = image(FILE["images_latent_pair"]).chunk(2, dim=1)
    draw = recorded_draw(
        time=(floats(arrays["draw/t_int"]) + 0.5) / 128, label_drop=unlabelled_choice(arrays["draw/label_drop"])
    )
    method = Reflow(label_drop=meta(FILE, case)["model"]["class_dropout_prob"], sigma_min=SIGMA_MIN)
    batch = Batch(x1, x0, integers(arrays["labels_in"]))
    agrees(method.targets(Networks(without_step("params")), batch, draw, START), case)


def live(case: str) -> tuple[LiveReflow, Batch, RecordedDraw, Tensor]:
    """The method, our batch, the recorded choices, and which of their rows each of ours is.

    Theirs: 4 reflow rows come first, of the first noises and labels; flow rows follow, of the first images and the
    same noises again. The last images are never used.
    """
    flags, arrays = meta(FILE, case)["model"], under(FILE, case)
    method = LiveReflow(
        share=1 / flags["bootstrap_every"],
        guidance=flags["cfg_scale"],
        label_drop=flags["class_dropout_prob"],
        sigma_min=SIGMA_MIN,
    )
    draw = recorded_draw(any=torch.zeros(16))
    reflow = draw.ours(draw.spread(method.share))
    theirs = torch.where(reflow, reflow.cumsum(0) - 1, 4 + (~reflow).cumsum(0) - 1)
    source = torch.where(theirs < 4, theirs, theirs - 4)  # whose noise, image and label it was
    t = torch.cat([floats(arrays["draw/t_reflow_int"]), floats(arrays["draw/t_int"])])
    draw = recorded_draw(time=(t[theirs] + 0.5) / 128, label_drop=unlabelled_choice(arrays["draw/label_drop"])[source])
    batch = Batch(
        image(FILE["images"])[source], image(arrays["draw/x0"])[source], integers(arrays["labels_in"])[source]
    )
    return method, batch, draw, theirs


@pytest.mark.parametrize("case", LIVE)
def test_live_reflow_targets(case: str) -> None:
    """The online network generates; a reflow row's own noise is the noise that it starts from."""
    method, batch, draw, theirs = live(case)
    ours = method.targets(Networks(network(PARAMS, "params", side=8)), batch, draw, START)
    agrees(ours, case, theirs)
    torch.testing.assert_close(ours.query.d, step_size(FILE[f"{case}/out/dt_base"])[theirs], atol=0, rtol=0)
    # their reflow targets leave sigma_min out, though x_t has it: ours is the derivative of the path
    left_out = SIGMA_MIN * expand(ours.query.d, batch.x0) * batch.x0
    torch.testing.assert_close(ours.target - left_out, image(FILE[f"{case}/out/v_t"])[theirs], atol=1e-5, rtol=0)


@pytest.mark.parametrize("steps", [1, 4])
def test_live_reflow_samples(steps: int) -> None:
    """Their script tells the network 1/N at every step, also where nothing trained it: ours asks for d = 1 or 0."""
    case = f"livereflow_n{steps}_cfg1.0"
    plan = LiveReflow().schedule(1) if steps == 1 else shortcut_schedule(steps)
    assert not meta(SAMPLER, case)["ignore_dt"]
    drawn = sample(
        network(PARAMS, "params", side=8),
        image(SAMPLER["start_noise"]),
        steps=plan,
        condition=integers(SAMPLER["labels"]),
    )
    torch.testing.assert_close(drawn, image(SAMPLER[f"{case}/x"]), atol=ATOL, rtol=0)


def test_all_recorded_cases_are_here() -> None:
    here = {*PROGRESSIVE, *LIVE, "consistency_distillation", "naive", "naive_latent_pairs_reflow"}
    assert {case for case in CASES if case not in here} == {f"consistency_training_step{n}" for n in (1, 350, 650)}
    assert len(here) == 9
