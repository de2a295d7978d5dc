"""Three whole training steps: loss, gradients, update and moving average are those that the released code logged."""

import json

import numpy as np
import pytest
import torch
from tests.reference.arrange import Recorded, arrange
from tests.reference.recorded import ATOL, image, integers, load, network, released, under
from torch import Tensor, nn

from anystep.interchange.reference import UNUSED
from anystep.networks import DiT
from anystep.objectives import Networks, PhaseProgress, Shortcut
from anystep.run.config import OptimizerConfig
from anystep.training.ema import Ema
from anystep.training.optimizer import build_optimizer

FILE = load("train_steps")
FLAGS = json.loads(str(FILE["config"]))
METHOD = Shortcut(
    share=1 / FLAGS["bootstrap_every"],
    label_drop=FLAGS["class_dropout_prob"],
    guidance=FLAGS["cfg_scale"],
    clip=4.0,
    sigma_min=1e-5,
)


def recorded(step: int) -> Recorded:
    arrays = under(FILE, f"step{step}")
    order = integers(arrays["perm"])
    drawn = under(arrays, "draw")
    return Recorded.of(
        image(arrays["images"])[order],
        integers(arrays["labels"])[order],
        drawn,
        image(drawn["x0_flow"]),
        arrays["dt_base"],
    )


def norm(tensors: list[Tensor], head: float = 0.0) -> float:
    """Return the norm of all tensors together, with that of their extra head, which we do not have."""
    return float(torch.stack([t.detach().double().square().sum() for t in tensors]).sum().add(head**2).sqrt())


def test_three_training_steps() -> None:
    online: DiT = network(FILE, "params0", side=4)
    average = Ema(online, FLAGS["target_update_rate"], warmup=False)
    rate, decay = FLAGS["lr"], FLAGS["weight_decay"]
    optimizer = build_optimizer(
        online, nn.Module(), OptimizerConfig(lr=rate, betas=(FLAGS["beta1"], FLAGS["beta2"]), weight_decay=decay)
    )
    parameters = list(online.parameters())
    head = head_average = float(np.linalg.norm(FILE[f"params0/{UNUSED}"]))  # no gradient: it only decays

    for step in range(3):
        log = under(FILE, f"step{step}/log")
        batch, draw, theirs = arrange(recorded(step), METHOD)
        losses = METHOD.loss(Networks(online, average.network), batch, draw, PhaseProgress(step, 3))
        rows = losses.rows.detach()
        assert float(rows.mean()) == pytest.approx(float(log["loss"]), abs=ATOL)
        assert float(rows[theirs < 8].mean()) == pytest.approx(float(log["loss_bootstrap"]), abs=ATOL)
        assert float(rows[theirs >= 8].mean()) == pytest.approx(float(log["loss_flow"]), abs=ATOL)

        optimizer.zero_grad()
        losses.rows.mean().backward()
        gradients = {name: p.grad for name, p in online.named_parameters() if p.grad is not None}
        assert norm(list(gradients.values())) == pytest.approx(float(log["grad_norm"]), abs=ATOL)
        if step == 0:
            ours = released(online, gradients)
            for name, expected in under(FILE, "grad_step0").items():
                np.testing.assert_allclose(ours[name], expected, atol=ATOL, rtol=0, err_msg=name)

        before = [p.detach().clone() for p in parameters]
        optimizer.step()
        average.update(online, step)
        update = [p.detach() - old for p, old in zip(parameters, before, strict=True)]
        assert norm(update, head * rate * decay) == pytest.approx(float(log["update_norm"]), abs=ATOL)
        head *= 1 - rate * decay
        head_average += (1 - FLAGS["target_update_rate"]) * (head - head_average)
        assert norm(parameters, head) == pytest.approx(float(log["param_norm"]), abs=ATOL)

    assert norm(parameters, head) == pytest.approx(float(FILE["final_param_norm"]), abs=ATOL)
    averaged = list(average.network.parameters())
    assert norm(averaged, head_average) == pytest.approx(float(FILE["final_ema_norm"]), abs=ATOL)
