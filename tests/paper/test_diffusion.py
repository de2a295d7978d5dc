"""Diffusion as DDPM and DDIM have it, in their own coordinates: transcriptions in NumPy, and `diffusers`."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anystep.core.random import Draw, Keys
from anystep.flow.condition import class_labels
from anystep.flow.conventions import VP_START, from_vp, vp_alpha_bar, vp_times
from anystep.flow.guidance import guided_velocity
from anystep.flow.path import advance
from anystep.flow.query import PhaseProgress
from anystep.flow.sampling import sample
from anystep.networks import VelocityNetwork
from anystep.objectives.base import Batch, Networks
from anystep.objectives.diffusion import Diffusion
from tests.paper.toy import CLASSES, WIDTH, Toy

ROWS = 40


class NoiseToy(VelocityNetwork):
    """The toy as a network that says the noise; its matrix W is a parameter."""

    def __init__(self, toy: Toy) -> None:
        super().__init__(class_labels(CLASSES), "noise")
        self.toy = toy
        self.W = torch.nn.Parameter(torch.from_numpy(toy.W))

    def output(self, x: Tensor, t: Tensor, d: Tensor, label: Tensor | None, guidance: Tensor | None) -> Tensor:
        p, E = (torch.from_numpy(a).to(x.dtype) for a in (self.toy.p, self.toy.E))
        assert label is not None
        return torch.tanh(x @ self.W.to(x.dtype).T + t[:, None].to(x.dtype) * p + E[label]) + x / 3

    def row(self, x_tau: np.ndarray, t: float, c: int) -> np.ndarray:
        """One example's noise, in NumPy."""
        return np.tanh(self.toy.W @ x_tau + self.toy.p * t + self.toy.E[c]) + x_tau / 3


def levels() -> np.ndarray:
    """abar of the thousand levels."""
    return np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


def training_batch() -> tuple[Batch, Draw]:
    rng = np.random.default_rng(0)
    x0, x1 = (torch.from_numpy(a) for a in rng.normal(size=(2, ROWS, WIDTH)))
    label = torch.from_numpy(rng.integers(0, CLASSES, ROWS))
    return Batch(x1, x0, label), Draw(Keys(0), step=5, total=ROWS, rows=slice(0, ROWS))


def ddpm_loss(network: NoiseToy, batch: Batch, draw: Draw, label_drop: float) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's epsilon loss, and the gradient of their mean in W, as DDPM writes them (Ho et al. eq. 14)."""
    assert batch.condition is not None
    u, drop, abar = draw.uniform("time").numpy(), draw.uniform("label_drop").numpy(), levels()
    x0, x1, label = batch.x0.numpy(), batch.x1.numpy(), batch.condition.numpy()
    losses, gradient = np.zeros(ROWS), np.zeros((WIDTH, WIDTH))
    for i in range(ROWS):
        tau = int(u[i] * 1000)
        a, b = np.sqrt(abar[tau]), np.sqrt(1 - abar[tau])
        x_tau = a * x1[i] + b * x0[i]
        c = CLASSES if drop[i] < label_drop else int(label[i])
        said = network.row(x_tau, a / (a + b), c)
        losses[i] = np.mean((x0[i] - said) ** 2)
        slope = 1 - (said - x_tau / 3) ** 2  # of tanh
        gradient += np.outer(2 / WIDTH * (said - x0[i]) * slope, x_tau) / ROWS
    return losses, gradient


@pytest.mark.parametrize("label_drop", [0.1, 1.0])
def test_the_loss_and_its_gradient_are_those_of_the_noise(label_drop: float) -> None:
    network, objective = NoiseToy(Toy.make(1)), Diffusion(label_drop=label_drop)
    batch, draw = training_batch()
    losses, gradient = ddpm_loss(network, batch, draw, label_drop)
    ours = objective.loss(Networks(network), batch, draw, PhaseProgress(0, 1)).rows
    ours.mean().backward()
    np.testing.assert_allclose(ours.detach().numpy(), losses, rtol=2e-5)
    assert network.W.grad is not None
    np.testing.assert_allclose(network.W.grad.numpy(), gradient, atol=2e-6)


def pipeline(steps: int) -> Any:
    """The scheduler of `diffusers`, with its float32 levels replaced by ours after a check that they are alike."""
    from diffusers import DDIMScheduler  # it loads the compiler of torch: only where it is used

    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), vp_alpha_bar(), rtol=1e-6, atol=0)
    scheduler.alphas_cumprod = vp_alpha_bar()
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    scheduler.set_timesteps(steps)
    return scheduler


def ddim(network: NoiseToy, x_tau: Tensor, label: Tensor, steps: int, scale: float) -> Tensor:
    """Return what the pipeline of `diffusers` draws from ``x_tau``, guided in noise."""
    scheduler, abar = pipeline(steps), levels()
    for tau in scheduler.timesteps:
        a, b = np.sqrt(abar[tau]), np.sqrt(1 - abar[tau])
        t, d = torch.full((len(label),), a / (a + b), dtype=torch.float64), torch.zeros(len(label))
        said = network.output(x_tau, t, d, label, None)
        null = network.output(x_tau, t, d, torch.full_like(label, CLASSES), None)
        x_tau = scheduler.step(null + scale * (said - null), tau, x_tau, eta=0.0).prev_sample
    return x_tau


@pytest.mark.parametrize("scale", [1.0, 1.5])
@pytest.mark.parametrize("steps", [1, 4, 50])
@torch.no_grad()
def test_ddim_is_euler_in_our_coordinates(steps: int, scale: float) -> None:
    """To 1e-10 in float64 throughout; to 1e-6 with the sampler, whose t and lengths are float32.

    Both are relative to the largest element of the samples. Noise is x_tau at the first level, there and here.
    """
    network, schedule = NoiseToy(Toy.make(1)), Diffusion().schedule(steps)
    rng = np.random.default_rng(0)
    noise, label = torch.from_numpy(rng.normal(size=(16, WIDTH))), torch.from_numpy(rng.integers(0, CLASSES, 16))
    start = torch.full((16,), VP_START, dtype=torch.float64)
    theirs = ddim(network, noise, label, steps, scale)
    x = from_vp(noise, start)
    for step in schedule:
        t, length = (
            torch.full((2, 16), step.t, dtype=torch.float64),
            torch.full((16,), step.length, dtype=torch.float64),
        )
        x = advance(x, length, guided_velocity(network, x, t[0], torch.zeros(16), label, scale))
    torch.testing.assert_close(x, theirs, rtol=0, atol=1e-10 * float(theirs.abs().max()))
    start = Diffusion().start(noise, schedule)
    drawn = sample(network, start, steps=schedule, condition=label, guidance=scale)
    torch.testing.assert_close(drawn, theirs, rtol=0, atol=1e-6 * float(theirs.abs().max()))


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 16, 50, 128, 1000])
def test_steps_visit_the_levels_that_the_pipeline_visits(steps: int) -> None:
    """Other budgets may differ by one level at a tie (48 steps: 937.5), which the pipeline's floats miss."""
    schedule = Diffusion().schedule(steps)
    visited = torch.tensor([step.t for step in schedule], dtype=torch.float64)
    assert torch.equal(visited, vp_times()[pipeline(steps).timesteps])
    ends = [step.t + step.length for step in schedule]
    assert ends == pytest.approx([*(step.t for step in schedule[1:]), 1.0], abs=1e-15)
    assert {step.d for step in schedule} == {0.0}
