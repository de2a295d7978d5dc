"""The reference network computes what the released code computes: outputs, activations, gradients, initial weights."""

import numpy as np
import pytest
import torch
from tests.reference.recorded import (
    ATOL,
    WithoutStep,
    floats,
    image,
    integers,
    load,
    network,
    released,
    step_size,
    under,
)
from torch import Tensor

from anystep.flow.condition import class_labels
from anystep.interchange.reference import UNUSED, network_from_params
from anystep.networks import DiT, DiTConfig, dit_preset
from anystep.networks.embeddings import grid_coordinates, sincos_positions

FILE = load("dit_forward")
X, T, LABEL = image(FILE["x_t"]), floats(FILE["t"]), integers(FILE["labels"])
D = torch.exp2(-floats(FILE["dt_base"]))


@pytest.fixture
def model() -> DiT:
    return network(FILE, "params", side=8)


def close(ours: Tensor, theirs: object, atol: float = ATOL) -> None:
    torch.testing.assert_close(ours.detach(), torch.as_tensor(theirs), atol=atol, rtol=0)


def test_output(model: DiT) -> None:
    close(model(X, T, D, LABEL), image(FILE["output"]))


def test_output_at_d_zero_is_that_of_the_finest_step(model: DiT) -> None:
    close(model(X, T, step_size(FILE["dt_base"]), LABEL), image(FILE["output"]))


def test_output_without_step(model: DiT) -> None:
    close(WithoutStep(model)(X, T, D, LABEL), image(FILE["output_ignore_dt"]))


def test_output_in_bf16_is_no_further_off_than_theirs(model: DiT) -> None:
    exact = image(FILE["output"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = model(X, T, D, LABEL)
    theirs = image(FILE["output_bf16_as_f32"])
    assert ours.dtype == torch.float32
    assert (ours - exact).abs().mean() < 1.2 * (theirs - exact).abs().mean()


def test_every_activation(model: DiT) -> None:
    seen: dict[str, Tensor] = {}
    parts = {
        "patch_embed": model.patch_embed,
        "time_embed": model.condition.time,
        "dt_embed": model.condition.step,
        "label_embed": model.condition.label,
        "conditioning": model.condition,
        "dit_block_0": model.blocks[0],
        "dit_block_1": model.blocks[1],
        "final_layer": model.final,
    }
    for name, part in parts.items():
        part.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    model(X, T, D, LABEL)
    seen["patch_embed"] = seen["patch_embed"].flatten(2).transpose(1, 2)
    seen["pos_embed"] = sincos_positions(grid_coordinates(4, 4, X.device), 64)[None]
    expected = under(FILE, "act")
    assert seen.keys() == expected.keys()
    for name, theirs in expected.items():
        # The residual stream reaches 100: there the recorded arrays are 6.2e-5 off a float64 run, and ours 4.9e-5.
        close(seen[name], theirs, atol=2 * ATOL if "block" in name else ATOL)


def test_loss_and_every_gradient(model: DiT) -> None:
    loss = (model(X, T, D, LABEL) - image(FILE["grad_target"])).square().mean()
    loss.backward()
    close(loss, FILE["loss"])
    ours = released(model, {name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for name, theirs in under(FILE, "grad").items():
        close(torch.from_numpy(ours[name]), theirs)
    norms = dict(zip(FILE["grad_norms_names"], FILE["grad_norms"], strict=True))
    assert norms.pop(UNUSED) == 0  # their extra head takes no part in the loss
    assert ours.keys() == norms.keys()
    for name, theirs in norms.items():
        np.testing.assert_allclose(np.linalg.norm(ours[name]), theirs, atol=ATOL, rtol=1e-5, err_msg=name)


def test_initial_weights_have_the_reference_statistics() -> None:
    torch.manual_seed(0)
    fresh = DiTConfig(hidden=64, depth=2, heads=4, variant="reference").build((4, 8, 8), class_labels(10))
    ours = released(fresh)
    theirs = dict(zip(FILE["init_stats_names"], FILE["init_stats_min_max_std"], strict=True))
    del theirs[UNUSED]
    assert ours.keys() == theirs.keys()
    for name, (low, high, std) in theirs.items():
        if low == high == 0:
            assert not ours[name].any(), name
        else:  # both are samples: a normal table of 704 values has a standard deviation known to 3 %
            assert ours[name].std() == pytest.approx(std, rel=0.12 if "Embed" in name else 0.04), name
            if "Embedder" not in name:  # uniform: the extremes tell the bound
                assert max(-ours[name].min(), ours[name].max()) == pytest.approx(max(-low, high), rel=0.03), name


@pytest.mark.parametrize(
    ("preset", "classes", "published"),
    [
        ("B/2", 1, 130_324_496),
        ("B/2", 1000, 131_091_728),
        ("L/2", 1000, 459_137_296),
        ("XL/2", 1000, 676_440_848),
    ],
)
def test_parameter_counts_are_the_published_ones(preset: str, classes: int, published: int) -> None:
    with torch.device("meta"):
        built = dit_preset(preset, variant="reference").build((4, 32, 32), class_labels(classes))
    unused_head = 256  # theirs counts a table of 256 log-variances that nothing reads; we do not have it
    assert sum(p.numel() for p in built.parameters()) + unused_head == published


def test_parameters_survive_the_round_trip(model: DiT) -> None:
    params = under(FILE, "params")
    back = released(model)
    assert back.keys() == params.keys() - {UNUSED}
    for name, array in back.items():
        np.testing.assert_array_equal(array, params[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"FinalLayer_0/Dense_1/bias": None}, "missing arrays: FinalLayer_0/Dense_1/bias$"),
        ({"PatchEmbed_0/Conv_0/kernel": None}, "missing arrays: PatchEmbed_0/Conv_0/kernel$"),
        ({"Head/kernel": np.zeros(3)}, "unexpected arrays: Head/kernel$"),
        (
            {"DiTBlock_1/Dense_4/kernel": np.zeros((64, 65))},
            r"wrong shapes: DiTBlock_1/Dense_4/kernel is \(64, 65\), expected \(64, 64\)$",
        ),
        ({"PatchEmbed_0/Conv_0/kernel": np.zeros(3)}, "PatchEmbed_0/Conv_0/kernel is .*, expected 4 axes"),
    ],
)
def test_foreign_parameters_are_refused_by_name(change: dict[str, np.ndarray | None], message: str) -> None:
    params = {name: array for name, array in {**under(FILE, "params"), **change}.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        network_from_params(params)


def test_heads_of_an_unknown_width_are_asked_for() -> None:
    config = DiTConfig(hidden=24, depth=1, heads=3, variant="reference")
    params = released(config.build((3, 8, 8), class_labels(5)))
    with pytest.raises(ValueError, match=r"width 24 .* pass heads"):
        network_from_params(params)
    found = network_from_params(params, heads=3)
    assert (found.config, found.conditions.num_classes, found.patch_embed.in_channels) == (config, 5, 3)
