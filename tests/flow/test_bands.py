"""The Haar transform is PyWavelets' rotation, and its bands are what their names mean."""

import numpy as np
import pytest
import pywt
import torch
from torch import Tensor

from anystep.flow.penalties.base import update_mean
from anystep.flow.penalties.haar import (
    ENERGY_FLOOR,
    BandNorm,
    band_error,
    band_shares,
    haar,
    max_levels,
    whitened,
)
from anystep.flow.penalties.squared import squared_error

SHAPES = [((3, 2, 8, 8), 3), ((2, 3, 28, 28), 2), ((2, 1, 8, 24), 3), ((2, 3, 32, 32), 1), ((4, 12), 2), ((4, 16), 4)]


def made(shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def band_energy(x: Tensor, levels: int) -> Tensor:
    """Mean square of each band's coefficients."""
    return torch.stack([band.square().mean() for band in haar(x, levels)])


def ones(x: Tensor, levels: int) -> Tensor:
    """Equal weights."""
    return torch.ones(len(haar(x, levels)))


@pytest.mark.parametrize(("shape", "levels"), SHAPES)
def test_bands_are_pywavelets_bands_in_its_order(shape: tuple[int, ...], levels: int) -> None:
    x = made(shape)
    if len(shape) == 4:
        low, *details = pywt.wavedec2(x.numpy(), "haar", level=levels, axes=(-2, -1))
        theirs = [low, *(band for level in details for band in level)]
    else:
        theirs = pywt.wavedec(x.numpy(), "haar", level=levels, axis=-1)
    ours = haar(x, levels)
    assert len(ours) == len(theirs) == len(band_shares(shape[1:], levels))
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our.numpy(), their, atol=1e-13)


@pytest.mark.parametrize(("shape", "levels"), SHAPES)
def test_the_transform_preserves_energy(shape: tuple[int, ...], levels: int) -> None:
    x = made(shape)
    bands = haar(x, levels)
    energy = torch.stack([band.square().flatten(1).sum(1) for band in bands]).sum(0)
    torch.testing.assert_close(energy, x.square().flatten(1).sum(1))


@pytest.mark.parametrize(("shape", "levels"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_unweighted_squares_are_the_squared_error(shape: tuple[int, ...], levels: int, dtype: torch.dtype) -> None:
    """Parseval: without weights such a loss has no effect."""
    prediction, target = made(shape, 1).to(dtype), made(shape, 2).to(dtype)
    rows = band_error(prediction, target, ones(target, levels), levels)
    assert rows.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(rows.float(), squared_error(prediction, target), rtol=1e-6, atol=1e-6)


def test_the_gradient_of_unweighted_squares_is_that_of_the_squared_error() -> None:
    target, gradients = made((2, 3, 16, 16), 2), []
    for error in (lambda x: band_error(x, target, ones(target, 4), 4), lambda x: squared_error(x.double(), target)):
        prediction = made((2, 3, 16, 16), 1).requires_grad_()
        error(prediction).sum().backward()
        gradients.append(prediction.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-6)


STRIPES = torch.tensor([1.0, -1.0]).repeat(4)
BLOCKS = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(2)
FLAT = torch.ones(8)


@pytest.mark.parametrize(
    ("band", "down", "across"),
    [
        ("low", FLAT, FLAT),
        ("horizontal 1", STRIPES, FLAT),
        ("vertical 1", FLAT, STRIPES),
        ("diagonal 1", STRIPES, STRIPES),
        ("horizontal 2", BLOCKS, FLAT),
        ("vertical 2", FLAT, BLOCKS),
        ("diagonal 2", BLOCKS, BLOCKS),
    ],
)
def test_a_weight_acts_on_the_pattern_that_its_band_is_named_after(band: str, down: Tensor, across: Tensor) -> None:
    """Horizontal stripes are all in ``horizontal``: rows of pixels that differ from those below."""
    image = (down[:, None] * across).expand(1, 2, 8, 8)
    names = ("low", *(f"{detail} {level}" for level in (2, 1) for detail in ("horizontal", "vertical", "diagonal")))
    weights = torch.where(torch.tensor([name == band for name in names]), 7.0, 0.5)
    assert float(band_error(image, torch.zeros_like(image), weights, 2)) == pytest.approx(7, abs=1e-6)
    others = torch.tensor([float(name != band) for name in names])
    assert float(band_error(image, torch.zeros_like(image), others, 2)) == pytest.approx(0, abs=1e-12)


def test_shares_are_the_bands_sizes() -> None:
    for shape, levels in SHAPES:
        size = [band[0].numel() / made(shape)[0].numel() for band in haar(made(shape), levels)]
        assert band_shares(shape[1:], levels).tolist() == size
        assert sum(size) == 1


def test_norms_are_their_formulas_over_the_coefficients() -> None:
    prediction, target = made((3, 2, 8, 8), 1), made((3, 2, 8, 8), 2)
    weights = torch.tensor([0.1, *np.linspace(0.5, 2, 9)])
    low, *details = pywt.wavedec2((prediction - target).numpy(), "haar", level=3, axes=(-2, -1))
    bands = [low, *(band for level in details for band in level)]
    rho = {"l2": np.square, "l1": np.abs, "charbonnier": lambda w: np.sqrt(w**2 + 0.3**2) - 0.3}
    for name, formula in rho.items():
        exact = sum(w * formula(band).sum((1, 2, 3)) for w, band in zip(weights.numpy(), bands, strict=True)) / 128
        rows = band_error(prediction, target, weights, 3, name, 0.3)  # type: ignore[arg-type]
        np.testing.assert_allclose(rows.numpy(), exact, rtol=1e-6)


def test_charbonnier_is_a_parabola_near_zero_and_the_distance_far_away() -> None:
    """And keeps its digits in float32, where sqrt(w^2 + eps^2) - eps would be 0."""
    zero = torch.zeros(1, 2)
    near, far = (
        float(band_error(torch.full((1, 2), w), zero, torch.ones(2), 1, "charbonnier", 0.01)) for w in (1e-6, 1e3)
    )
    assert near == pytest.approx(1e-12 / 0.02, rel=1e-5)
    assert far == pytest.approx(1e3 / 2**0.5, rel=1e-4)  # both in one coefficient, sqrt(2) 1e3, over two elements


@pytest.mark.parametrize("norm", ["l2", "l1", "charbonnier"])
@pytest.mark.parametrize(("shape", "levels"), [((2, 2, 4, 8), 2), ((2, 8), 3)])
def test_gradients_are_right(norm: BandNorm, shape: tuple[int, ...], levels: int) -> None:
    weights = torch.linspace(0.2, 3, len(band_shares(shape[1:], levels)), dtype=torch.float64)
    prediction, target = made(shape, 1).requires_grad_(), made(shape, 2)
    assert torch.autograd.gradcheck(lambda x: band_error(x, target, weights, levels, norm, 0.1), prediction)
    assert torch.autograd.gradcheck(lambda x: tuple(haar(x, levels)), prediction)


def test_a_perfect_prediction_has_a_finite_gradient() -> None:
    for norm in ("l2", "l1", "charbonnier"):
        prediction = made((1, 1, 4, 4)).requires_grad_()
        band_error(prediction, prediction.detach(), torch.ones(7), 2, norm).sum().backward()
        assert prediction.grad is not None and not prediction.grad.any()


def test_the_energy_of_white_noise_is_one_in_every_band_and_of_a_flat_image_all_low() -> None:
    assert (band_energy(made((4096, 1, 8, 8)), 3) - 1).abs().max() < 0.1
    flat = made((64, 1, 1, 1)).expand(64, 1, 8, 8)
    energy = band_energy(flat, 3)
    torch.testing.assert_close(energy[0], 64 * flat.square().mean())  # each of 64 equal pixels in one coefficient
    assert energy[1:].max() < 1e-20


def test_whitened_bands_are_equally_wrong_per_element_when_nothing_is_predicted() -> None:
    target = made((64, 2, 16, 16)).cumsum(-1).cumsum(-2)
    energy = band_energy(target, 4)
    assert energy[0] > 1e4 * energy[-1]  # such sums are smooth
    share = band_shares((2, 16, 16), 4)
    weights = whitened(energy, share)
    torch.testing.assert_close(weights * energy, (weights * energy)[:1].expand(13))
    assert float((share * weights).sum()) == pytest.approx(1)  # the mean over elements
    parts = torch.stack([band_error(0 * target, target, one, 4).mean() for one in torch.eye(13) * weights.float()])
    torch.testing.assert_close(parts / parts.sum(), share, rtol=1e-5, atol=0)


def test_whitening_white_targets_changes_nothing_and_keeps_the_loss_of_a_white_error() -> None:
    same, share = torch.ones(10, dtype=torch.float64), band_shares((1, 8, 8), 3)
    torch.testing.assert_close(whitened(3 * same, share), same)
    weights = whitened(torch.logspace(3, -1, 10, dtype=torch.float64), share)
    error = made((20_000, 1, 8, 8))
    assert float(band_error(error, 0 * error, weights, 3).mean()) == pytest.approx(1, rel=0.01)


def test_a_band_in_which_nothing_varies_has_a_finite_weight() -> None:
    energy = torch.tensor([1.0, 1.0, 1.0, 0.0])
    weights = whitened(energy, band_shares((1, 2, 2), 1))
    assert weights.isfinite().all()
    assert float(weights[3] / weights[0]) == pytest.approx(0.75 / ENERGY_FLOOR * 4 / 3 * 4 / 3, rel=1e-3)


def test_a_running_mean_is_an_exponential_average_that_starts_with_the_first_value() -> None:
    values, mean = made((20, 4)), torch.zeros(4, dtype=torch.float64)
    for value in values:
        update_mean(mean, value, 0.9)
    weights = torch.tensor([0.9**19, *(0.1 * 0.9 ** (19 - n) for n in range(1, 20))], dtype=torch.float64)
    torch.testing.assert_close(mean, weights @ values)


def test_levels_are_as_many_as_halve_every_side_exactly() -> None:
    sizes = {(32, 32): 5, (28, 28): 2, (8, 24): 3, (30, 32): 1, (27, 28): 0, (1, 1): 0}
    assert {size: max_levels((3, *size)) for size in sizes} == sizes
    assert max_levels((12,)) == 2
