"""What all networks share: noise said, velocity given; the scale of time; forgotten inputs; the guidance scale."""

import dataclasses

import pytest
import torch
from torch import Tensor

from anystep.flow.condition import UNCONDITIONAL, ConditionSpec, Entry, class_labels
from anystep.flow.conventions import VP_START, to_vp, velocity_from_noise
from anystep.flow.path import data_from_velocity, expand
from anystep.networks import DiTConfig, MLPConfig, NetworkConfig, VelocityNetwork
from anystep.objectives.mean_flow import total_derivative

SHAPES = {"dit": (3, 8, 8), "mlp": (6,)}
CONFIGS = (DiTConfig(hidden=32, depth=2, heads=4), MLPConfig(hidden=32, depth=2))
CLASSES = 4
both = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)


def build(config: NetworkConfig, **changes: object) -> VelocityNetwork:
    """Every weight a normal one, drawn in the order of its name but for optional inputs': alike whatever is told."""
    network = dataclasses.replace(config, **changes).build(SHAPES[config.name], class_labels(CLASSES))  # type: ignore[type-var]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        last = ("condition.step.", "condition.guidance.")
        for _, p in sorted(network.named_parameters(), key=lambda named: (named[0].startswith(last), named[0])):
            p.copy_(torch.randn(p.shape, generator=generator) * 0.15)
    return network


def inputs(config: NetworkConfig, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = torch.randn(5, *SHAPES[config.name], generator=torch.Generator().manual_seed(1)).to(dtype)
    return x, torch.tensor([VP_START, 0.1, 0.4, 0.8, 1.0]), torch.zeros(5), torch.arange(5)


@both
def test_noise_is_the_velocity_of_the_same_weights_read_otherwise(config: NetworkConfig) -> None:
    """Shown the variance-preserving input, the same weights say the same numbers: now the noise."""
    says_velocity, says_noise = build(config), build(config, prediction="noise")
    assert list(says_velocity.state_dict()) == list(says_noise.state_dict())
    x, t, d, label = inputs(config)
    said = says_velocity(to_vp(x, t), t, d, label)
    assert torch.equal(says_noise(x, t, d, label), velocity_from_noise(x, t, said))


@both
def test_a_fresh_noise_network_says_that_there_is_none(config: NetworkConfig) -> None:
    """eps = 0, so v = x_t / t: everything is data. Finite at t = 0 too."""
    network = dataclasses.replace(config, prediction="noise").build(SHAPES[config.name], class_labels(CLASSES))  # type: ignore[type-var]
    x, t, d, label = inputs(config)
    torch.testing.assert_close(data_from_velocity(x, t, network(x, t, d, label)), x / expand(t, x))
    assert torch.isfinite(network(x, torch.zeros(5), d, label)).all()


@both
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_noise_network_answers_in_the_dtype_of_x_and_divides_in_float32_or_more(
    config: NetworkConfig, dtype: torch.dtype
) -> None:
    network = build(config, prediction="noise")
    x, t, d, label = inputs(config, dtype)
    exact = network(x.float(), t, d, label)
    answer = network(x, t, d, label)
    assert answer.dtype == dtype
    torch.testing.assert_close(answer.float(), exact, rtol=2**-8, atol=1e-3)


@both
def test_autocast_rounds_the_noise_that_is_said_and_nothing_after_it(config: NetworkConfig) -> None:
    network = build(config, prediction="noise")
    x, t, d, label = inputs(config)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        velocity = network(x, t, d, label)
        said = network.output(to_vp(x, t), t, d, label, None)
    assert velocity.dtype == torch.float32
    torch.testing.assert_close(velocity, velocity_from_noise(x, t, said), rtol=0, atol=0)


def test_a_noise_network_is_one_graph_for_any_batch() -> None:
    network = build(CONFIGS[0], prediction="noise").eval()
    rows = {0: torch.export.Dim("rows", min=2)}
    program = torch.export.export(network, inputs(CONFIGS[0]), dynamic_shapes=(rows, rows, rows, rows), strict=True)
    few = tuple(argument[:3] for argument in inputs(CONFIGS[0]))
    torch.testing.assert_close(program.module()(*few), network(*few))


@both
@pytest.mark.parametrize("encoding", ["log2", "continuous"])
def test_a_forgotten_step_is_no_step_bit_for_bit_and_can_be_learned(config: NetworkConfig, encoding: str) -> None:
    network, stepless = build(config, step_encoding=encoding), build(config, step_encoding="none")
    x, t, _, label = inputs(config)
    d = torch.tensor([0.0, 1 / 128, 0.25, 0.5, 1.0])
    assert not torch.allclose(network(x, t, d, label), stepless(x, t, d, label), atol=1e-3)
    network.condition.zero_input("step")
    assert torch.equal(network(x, t, d, label), stepless(x, t, d, label))
    network(x, t, d, label).square().mean().backward()
    step = network.condition.step
    assert step is not None and step.outer.weight.grad is not None and step.outer.bias.grad is not None
    assert bool(step.outer.weight.grad.any()) and bool(step.outer.bias.grad.any())
    with torch.no_grad():
        for p in step.outer.parameters():
            p.sub_(p.grad, alpha=0.1)  # one step of learning
    answer = network(x, t, d, label)
    assert not torch.equal(answer, network(x, t, d.flip(0), label))
    step.inner.zero_grad()
    network(x, t, d, label).square().mean().backward()
    assert bool(step.inner.weight.grad.any())  # type: ignore[union-attr]


@both
def test_a_network_without_a_step_has_none_to_forget(config: NetworkConfig) -> None:
    network = build(config, step_encoding="none")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.condition.zero_input("step")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@both
def test_a_network_that_takes_the_scale_begins_independent_of_it_bit_for_bit_and_can_learn_it(
    config: NetworkConfig,
) -> None:
    network, without = build(config, guidance_input=True, step_encoding="none"), build(config, step_encoding="none")
    assert network.takes_guidance and not without.takes_guidance
    x, t, d, label = inputs(config)
    W = torch.tensor([1.0, 1.25, 2.0, 3.0, 4.5])
    assert torch.equal(without(x, t, d, label, W), without(x, t, d, label))  # it ignores W
    assert torch.equal(network(x, t, d, label), network(x, t, d, label, torch.ones(5)))  # None is W = 1
    told = network(x, t, d, label, W)
    assert not torch.isclose(told[1:], network(x, t, d, label)[1:], atol=1e-4).flatten(1).all(1).any()
    fresh = dataclasses.replace(config, guidance_input=True).build(SHAPES[config.name], class_labels(CLASSES))  # type: ignore[type-var]
    assert fresh.condition.guidance is not None and not fresh.condition.guidance(W).any()
    network.condition.zero_input("guidance")
    assert torch.equal(network(x, t, d, label, W), without(x, t, d, label))
    network(x, t, d, label, W).square().mean().backward()
    embedding = network.condition.guidance
    assert embedding is not None and bool(embedding.outer.weight.grad.any())  # type: ignore[union-attr]


@both
def test_without_a_scale_the_state_is_what_it_was(config: NetworkConfig) -> None:
    names = [set(build(config, guidance_input=told).state_dict()) for told in (False, True)]
    more = {f"condition.guidance.{layer}.{kind}" for layer in ("inner", "outer") for kind in ("weight", "bias")}
    assert names[1] - names[0] == more and names[0] < names[1]


def test_neighbouring_scales_have_neighbouring_codes() -> None:
    """A step of the grid that is trained, 1/4, turns the fastest sinusoid by one radian: what lies between is near."""
    condition = build(CONFIGS[1], guidance_input=True).condition
    seen: list[Tensor] = []
    assert condition.guidance is not None
    condition.guidance.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    condition(torch.zeros(3), torch.zeros(3), torch.zeros(3, dtype=torch.long), torch.tensor([1.0, 1.25, 4.5]))
    assert seen[0].tolist() == [0, 1, 14]


@both
def test_time_and_step_are_multiplied_by_the_time_scale(config: NetworkConfig) -> None:
    """A network of scale 2 at (t, d) is one of scale 1 at (2t, 2d)."""
    one, two = (build(config, step_encoding="continuous", time_scale=scale) for scale in (1.0, 2.0))
    x, _, _, label = inputs(config)
    t, d = torch.linspace(0, 0.5, 5), torch.linspace(0.5, 0, 5)
    assert torch.equal(two(x, t, d, label), one(x, 2 * t, 2 * d, label))


def test_rungs_are_spread_over_the_time_scale() -> None:
    condition = MLPConfig(time_scale=16.0).build((2,), UNCONDITIONAL).condition
    assert condition.step_value(torch.tensor([1.0, 1 / 128, 0.0])).tolist() == pytest.approx([0, 16, 16])


@both
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction": "data"}, "prediction must be one of velocity, noise, got 'data'"),
        ({"time_scale": 0.0}, r"time_scale must be greater than 0 and finite, got 0.0"),
        ({"time_scale": float("inf")}, "time_scale must be greater than 0"),
    ],
)
def test_invalid_configurations_name_the_field(config: NetworkConfig, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **changes)  # type: ignore[type-var]


def test_the_released_network_says_velocities_and_takes_raw_time() -> None:
    with pytest.raises(ValueError, match="prediction must be 'velocity' with variant \"reference\", got 'noise'"):
        DiTConfig(variant="reference", prediction="noise")
    with pytest.raises(ValueError, match=r'time_scale must be 1000\.0 with variant "reference", got 16\.0'):
        DiTConfig(variant="reference", time_scale=16.0)


EMPTY = [
    *(
        dataclasses.replace(config, prediction=said, guidance_input=True)
        for config in CONFIGS
        for said in ("velocity", "noise")
    ),
    DiTConfig(hidden=32, depth=2, heads=4, qk_norm=True, norm="rms", mlp="swiglu", positions="rotary"),
    DiTConfig(hidden=32, depth=2, heads=4, variant="reference"),
]


@pytest.mark.parametrize("config", EMPTY, ids=str)
def test_no_examples_have_no_velocities_and_a_zero_gradient_in_every_weight(config: NetworkConfig) -> None:
    """A rank whose micro-batch has no rows of a kind calls the network all the same: backward too, and its JVP."""
    entries = {"label": Entry("label", classes=("a", "b")), "state": Entry("feature", (2, 3))}
    network = config.build(SHAPES[config.name], ConditionSpec(entries, single=False))
    x, t, zero = torch.empty(0, *SHAPES[config.name]), torch.empty(0), torch.empty(0)
    condition = {"label": torch.empty(0, dtype=torch.int64), "state": torch.empty(0, 2, 3)}
    for given in (condition, network.null(condition), None):
        network.zero_grad()
        v = network(x, t, zero, given, torch.ones(0) if config.guidance_input else None)
        assert v.shape == x.shape
        v.sum().backward()
        assert all(p.grad is not None and not p.grad.any() for p in network.parameters())
    assert total_derivative(network, x, t, zero, condition, x).shape == x.shape
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(x, t, zero, condition).shape == x.shape
