"""Facts about the DiT, whatever its options."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from anystep.flow.condition import UNCONDITIONAL, class_labels
from anystep.flow.query import Network
from anystep.networks import NETWORKS, DiT, DiTConfig, VelocityNetwork, dit_preset
from anystep.networks.blocks import Attention, attend
from anystep.networks.dit import DIT_PRESETS, unpatchify
from anystep.networks.embeddings import grid_coordinates, rotary_angles, sincos_positions

SMALL = DiTConfig(hidden=32, depth=2, heads=4, patch=2)
OPTIONS = {
    "plain": {},
    "reference": {"variant": "reference"},
    "qk_norm": {"qk_norm": True},
    "rms": {"norm": "rms"},
    "swiglu": {"mlp": "swiglu"},
    "rotary": {"positions": "rotary"},
    "all": {"qk_norm": True, "norm": "rms", "mlp": "swiglu", "positions": "rotary"},
    "continuous": {"step_encoding": "continuous"},
}


def awake(network: VelocityNetwork, seed: int = 0) -> VelocityNetwork:
    """Replace every weight by a normal one, so that nothing is hidden behind a zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.15)
    return network


def inputs(side: int = 8, rows: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 3, side, side, generator=generator)
    return x, torch.linspace(0, 0.9, rows), torch.tensor([0.0, 1 / 128, 0.25, 1.0])[:rows], torch.arange(rows)


@pytest.fixture(params=OPTIONS)
def network(request: pytest.FixtureRequest) -> DiT:
    return dataclasses.replace(SMALL, **OPTIONS[request.param]).build((3, 8, 8), class_labels(10))


def test_first_velocity_is_exactly_zero(network: DiT) -> None:
    assert isinstance(network, Network)
    x, t, d, label = inputs()
    assert not network(x, t, d, label).any()


def test_blocks_of_the_standard_dit_start_as_the_identity() -> None:
    network = SMALL.build((3, 8, 8), class_labels(10))
    tokens = torch.randn(2, 16, 32)
    for block in network.blocks:
        assert torch.equal(block(tokens, torch.randn(2, 32)), tokens)


def test_each_row_is_its_own(network: DiT) -> None:
    awake(network)
    x, t, d, label = inputs()
    order = torch.tensor([2, 0, 3, 1])
    together = network(x, t, d, label)
    torch.testing.assert_close(network(x[order], t[order], d[order], label[order]), together[order])
    torch.testing.assert_close(network(x[1:2], t[1:2], d[1:2], label[1:2]), together[1:2])


def test_finest_step_is_asked_as_the_instantaneous_velocity() -> None:
    network = awake(SMALL.build((3, 8, 8), class_labels(10)))
    x, t, _, label = inputs()
    zero, finest, next_finest = (torch.full((4,), d) for d in (0.0, 1 / 128, 1 / 64))
    assert torch.equal(network(x, t, zero, label), network(x, t, finest, label))
    assert not torch.allclose(network(x, t, zero, label), network(x, t, next_finest, label), atol=1e-3)


def test_rungs_of_the_standard_ladder_have_distinct_codes() -> None:
    step = SMALL.build((3, 8, 8), UNCONDITIONAL).condition
    assert step.step_value(torch.tensor([1.0, 0.5, 1 / 128, 0.0])).tolist() == pytest.approx([0, 1000 / 7, 1000, 1000])


def test_continuous_step_tells_zero_from_the_finest() -> None:
    network = awake(dataclasses.replace(SMALL, step_encoding="continuous").build((3, 8, 8), class_labels(10)))
    x, t, _, label = inputs()
    zero, finest = torch.zeros(4), torch.full((4,), 1 / 128)
    assert not torch.equal(network(x, t, zero, label), network(x, t, finest, label))


def test_network_without_step_ignores_d() -> None:
    network = awake(dataclasses.replace(SMALL, step_encoding="none").build((3, 8, 8), class_labels(10)))
    x, t, d, label = inputs()
    assert torch.equal(network(x, t, d, label), network(x, t, torch.full_like(d, torch.nan), label))
    assert not any("step" in name for name, _ in network.named_parameters())


def test_no_label_is_the_null_label() -> None:
    network = awake(SMALL.build((3, 8, 8), class_labels(10)))
    x, t, d, label = inputs()
    assert network.conditions.num_classes == 10
    assert torch.equal(network(x, t, d), network(x, t, d, torch.full_like(label, 10)))


def test_wrong_labels_are_named() -> None:
    x, t, d, label = inputs()
    conditional, unconditional = SMALL.build((3, 8, 8), class_labels(3)), SMALL.build((3, 8, 8), UNCONDITIONAL)
    with pytest.raises(ValueError, match=r"label must be 0 ... 2, or 3 for null, got 7"):
        conditional(x, t, d, torch.tensor([0, 3, 7, 1]))
    with pytest.raises(ValueError, match="got -1"):
        conditional(x, t, d, torch.tensor([0, -1, 2, 1]))
    with pytest.raises(ValueError, match="unconditional"):
        unconditional(x, t, d, label)
    assert unconditional(x, t, d).shape == x.shape


def test_patches_are_laid_out_where_they_were_cut() -> None:
    """A patch embedding that copies its pixels, undone by `unpatchify`, is the identity; rows and columns differ."""
    embed = nn.Conv2d(3, 12, 2, stride=2, bias=False)
    with torch.no_grad():  # output (row, column, channel), as the final layer has it
        embed.weight.copy_(torch.eye(12).reshape(12, 2, 2, 3).permute(0, 3, 1, 2))
    x = torch.randn(2, 3, 4, 6)
    torch.testing.assert_close(unpatchify(embed(x).flatten(2).transpose(1, 2), 2, 3, 2), x)


def test_any_size_that_the_patch_divides(network: DiT) -> None:
    awake(network)
    _, t, d, label = inputs()
    tall = torch.randn(4, 3, 12, 4)
    assert torch.isfinite(network(tall, t, d, label)).all()
    assert not torch.allclose(network(tall, t, d, label).mT, network(tall.mT, t, d, label), atol=1e-3)
    with pytest.raises(ValueError, match=r"multiples of patch \(2\), got 8 x 7"):
        network(torch.randn(4, 3, 8, 7), t, d, label)


def test_positions_tell_columns_first() -> None:
    positions = sincos_positions(grid_coordinates(3, 5, torch.device("cpu")), 16).reshape(3, 5, 16)
    assert (positions[:, :, :8] == positions[:1, :, :8]).all()  # the same in every row
    assert (positions[:, :, 8:] == positions[:, :1, 8:]).all()  # the same in every column
    assert len(positions.reshape(15, 16).unique(dim=0)) == 15


def test_rotary_attention_sees_only_relative_positions() -> None:
    torch.manual_seed(0)
    attention = Attention(32, heads=2, scale=0.25)
    x = torch.randn(2, 12, 32)
    grid = grid_coordinates(3, 4, x.device)
    here, there = rotary_angles(grid, 16), rotary_angles(grid + torch.tensor([5.0, 11.0]), 16)
    torch.testing.assert_close(attention(x, here), attention(x, there), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(attention(x, here), attention(x), atol=1e-3)
    swapped = rotary_angles(grid.flip(1), 16)
    assert not torch.allclose(attention(x, here), attention(x, swapped), atol=1e-3)


def test_attention_without_positions_is_blind_to_order() -> None:
    torch.manual_seed(0)
    attention, x, order = Attention(32, heads=4, scale=0.3), torch.randn(2, 9, 32), torch.randperm(9)
    torch.testing.assert_close(attention(x[:, order]), attention(x)[:, order])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_and_fused_attention_agree(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 9, 16).to(dtype)
    plain = attend(q, k, v, 1 / 16)
    monkeypatch.setattr("anystep.networks.blocks.CPU_PLAIN_TOKENS", 0)
    fused = attend(q, k, v, 1 / 16)
    assert plain.dtype == fused.dtype == dtype
    torch.testing.assert_close(plain, fused, atol=4e-3 if dtype == torch.bfloat16 else 1e-6, rtol=0)


def test_qk_norm_bounds_the_logits() -> None:
    """Queries and keys grown a thousandfold change nothing."""
    torch.manual_seed(0)
    attention, x = Attention(32, heads=4, scale=0.3, qk_norm=True), torch.randn(2, 9, 32)
    with torch.no_grad():
        before = attention(x)
        attention.qkv.weight[:64] *= 1000
        attention.qkv.bias[:64] *= 1000
    torch.testing.assert_close(attention(x), before, atol=1e-4, rtol=1e-4)


def test_swiglu_has_as_many_parameters_as_gelu() -> None:
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in dit_preset("S/2", mlp=mlp).build((4, 32, 32), class_labels(1000)).parameters())
            for mlp in ("gelu", "swiglu")
        ]
    assert counts[0] == pytest.approx(counts[1], rel=2e-3)


def test_bf16_is_close_and_returned_in_float32(network: DiT) -> None:
    awake(network)
    x, t, d, label = inputs()
    exact = network(x, t, d, label)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network(x, t, d, label)
    assert rough.dtype == torch.float32
    assert (rough - exact).std() < 0.03 * exact.std()


def test_weights_in_bf16_work_without_autocast(network: DiT) -> None:
    awake(network)
    x, t, d, label = inputs()
    exact = network(x, t, d, label)
    assert (network.bfloat16()(x, t, d, label) - exact).std() < 0.06 * exact.std()


@pytest.mark.parametrize("options", ["plain", "all"])
def test_forward_is_one_graph_for_any_batch(options: str) -> None:
    """What `torch.compile` and the exporters need: no branch on values, no fixed batch; the same numbers."""
    network = awake(dataclasses.replace(SMALL, **OPTIONS[options]).build((3, 8, 8), class_labels(10))).eval()
    rows = {0: torch.export.Dim("rows", min=2)}
    program = torch.export.export(network, inputs(), dynamic_shapes=(rows, rows, rows, rows), strict=True)
    x, t, d, label = inputs(rows=3)
    torch.testing.assert_close(program.module()(x, t, d, label), network(x, t, d, label))


def test_every_weight_learns(network: DiT) -> None:
    awake(network)
    x, t, d, label = inputs()
    network(x, t, d, label).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_a_network_on_the_meta_device_counts_its_operations() -> None:
    """Without memory for any of it, as a recipe's cost on another machine is estimated."""

    def operations(device: str) -> int:
        with torch.device(device), FlopCounterMode(display=False) as counter:
            network = DiTConfig(hidden=16, depth=2, heads=2).build((3, 8, 8), class_labels(5))
            answer = network(torch.ones(2, 3, 8, 8), torch.zeros(2), torch.ones(2), torch.tensor([1, 2]))
        assert answer.device.type == device
        return counter.get_total_flops()

    assert operations("meta") == operations("cpu") > 0


def test_meta_network_can_be_filled_in() -> None:
    with torch.device("meta"):
        built = dataclasses.replace(SMALL, qk_norm=True).build((3, 8, 8), class_labels(10))
    built.to_empty(device="cpu")
    for p in built.parameters():
        p.detach().fill_(torch.nan)
    torch.manual_seed(3)
    built.reset_parameters()
    fresh = dataclasses.replace(SMALL, qk_norm=True).build((3, 8, 8), class_labels(10))
    torch.manual_seed(3)
    fresh.reset_parameters()
    for name, p in fresh.state_dict().items():
        assert torch.equal(p, built.state_dict()[name]), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 5}, r"hidden must be a multiple of heads \(5\), got 32"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"patch": 0}, "patch must be at least 1"),
        ({"mlp_ratio": 0.0}, "mlp_ratio must be greater than 0"),
        ({"heads": 16, "positions": "rotary"}, "multiple of 4 for rotary positions, got 2"),
        ({"hidden": 6, "heads": 2}, "multiple of 4 for sincos positions, got 6"),
        ({"variant": "reference", "qk_norm": True}, 'qk_norm must be False with variant "reference", got True'),
        ({"variant": "reference", "positions": "rotary"}, "positions must be 'sincos'"),
        ({"norm": "batch"}, "norm must be one of layer, rms, got 'batch'"),
        ({"step_encoding": "log10"}, "step_encoding must be one of log2, continuous, none"),
    ],
)
def test_invalid_configurations_say_what_is_wrong(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changes)


def test_shapes_that_do_not_fit_say_so() -> None:
    with pytest.raises(ValueError, match=r"multiples of patch \(2\), got 8 x 7"):
        SMALL.build((3, 8, 7), UNCONDITIONAL)
    with pytest.raises(ValueError, match=r"channels, height, width"):
        SMALL.build((64,), UNCONDITIONAL)
    with pytest.raises(ValueError, match="num_classes must be at least 1"):
        SMALL.build((3, 8, 8), class_labels(0))


def test_presets() -> None:
    assert len(DIT_PRESETS) == 16
    xl = dit_preset("XL/8", step_encoding="continuous")
    assert (xl.hidden, xl.depth, xl.heads, xl.patch, xl.step_encoding) == (1152, 28, 16, 8, "continuous")
    with pytest.raises(ValueError, match=r"no DiT preset 'B/3': it must be one of S/1, .*XL/8"):
        dit_preset("B/3")


def test_registry_builds_by_name() -> None:
    assert {name: config.name for name, config in NETWORKS.items()} == {"dit": "dit", "mlp": "mlp"}
