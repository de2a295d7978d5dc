"""Conditions: every form is handled equally, and "nothing given" is the same as no condition."""

import math
from dataclasses import replace

import pytest
import torch
from tests.toys import feature_vector
from torch import Tensor, nn

from anystep.core.errors import UsageError
from anystep.core.random import Keys
from anystep.flow.condition import (
    UNCONDITIONAL,
    Condition,
    ConditionSpec,
    Entry,
    cat,
    class_labels,
    rows,
    same,
    to,
    where,
)
from anystep.flow.guidance import guided_velocity
from anystep.flow.sampling import sample
from anystep.networks import DiTConfig, MLPConfig, NetworkConfig
from anystep.networks.embeddings import FeatureEmbedding
from anystep.objectives import Batch, Draw, ImprovedShortcut, Networks, PhaseProgress, Shortcut
from anystep.objectives.base import drop
from anystep.objectives.improved_shortcut import GUIDED

B = 6
BOTH = ConditionSpec(
    {"label": Entry("label", classes=("a", "b", "c")), "state": Entry("feature", (2, 2))}, single=False
)
#: the state is always given
PARTLY = ConditionSpec({**BOTH.entries, "state": Entry("feature", (2, 2), drop=False)}, single=False)
SPECS = [UNCONDITIONAL, class_labels(3), feature_vector(2, 2), feature_vector(), BOTH, PARTLY]
every_form = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: "+".join(spec.entries) or "nothing")


def given(spec: ConditionSpec, count: int = B, seed: int = 0) -> Condition:
    """Return a condition of ``count`` examples, something in each."""
    source = torch.Generator().manual_seed(seed)
    return spec.of(
        {
            name: torch.randint(3, (count,), generator=source)
            if entry.kind == "label"
            else torch.randn(count, *entry.shape, generator=source)
            for name, entry in spec.entries.items()
        }
    )


def equal(spec: ConditionSpec, one: Condition, other: Condition) -> bool:
    """Tell whether two conditions are equal to the last bit, NaN in the same places."""
    pairs = zip(spec.named(one).values(), spec.named(other).values(), strict=True)
    return all(bool(torch.isclose(a, b, rtol=0, atol=0, equal_nan=True).all()) for a, b in pairs)


# --- its forms ---


@every_form
def test_parts_end_to_end_are_the_whole_and_no_part_is_empty_of_form(spec: ConditionSpec) -> None:
    whole = given(spec)
    assert equal(spec, cat(rows(whole, slice(0, 2)), rows(whole, slice(2, 2)), rows(whole, slice(2, None))), whole)
    order = torch.tensor([3, 0, 3])
    for name, tensor in spec.named(rows(whole, order)).items():
        assert torch.equal(tensor, spec.named(whole)[name][order])
    assert equal(spec, rows(whole, torch.arange(B) > 3), rows(whole, slice(4, None)))
    assert equal(spec, to(whole, torch.device("cpu")), whole)


@every_form
@pytest.mark.parametrize("count", [0, 1, B])
def test_where_chooses_whole_examples(spec: ConditionSpec, count: int) -> None:
    one, other, mask = given(spec, count), given(spec, count, seed=1), torch.arange(count) % 2 == 0
    chosen = where(mask, one, other)
    assert equal(spec, rows(chosen, mask), rows(one, mask)) and equal(spec, rows(chosen, ~mask), rows(other, ~mask))


def test_same_compares_whole_examples_and_takes_nan_for_equal() -> None:
    one = given(BOTH)
    assert isinstance(one, dict)
    assert same(one, one).tolist() == [True] * B
    label, state = one["label"].clone(), one["state"].clone()
    label[1] = (label[1] + 1) % 3
    state[2, 1, 0] += 1
    state[3] = torch.nan
    assert same(one, {"label": label, "state": state}).tolist() == [True, False, False, False, True, True]
    assert same({"label": label, "state": state}, {"label": label, "state": state.clone()}).all()
    partly = state.clone()
    partly[3, 0, 0] = 0
    assert same(state, partly).tolist() == [True, True, True, False, True, True]
    assert same(label, one["label"]).tolist() == [True, False, True, True, True, True]
    assert same(rows(one, slice(0, 0)), rows(one, slice(0, 0))).shape == (0,)


@every_form
def test_nothing_has_the_form_of_the_condition_and_null_is_nothing(spec: ConditionSpec) -> None:
    if spec is PARTLY:
        return
    condition = given(spec)
    nothing = spec.nothing(B)
    assert equal(spec, spec.null(condition), nothing) and equal(spec, spec.null(nothing), nothing)
    if spec:
        assert same(spec.null(condition), nothing).all() and not same(condition, nothing).any()
        spec.check(nothing, B)
    for name, tensor in spec.named(nothing).items():
        label = spec.entries[name].kind == "label"
        assert bool((tensor == 3).all()) if label else bool(tensor.isnan().all())


def test_null_leaves_entries_that_are_never_dropped() -> None:
    condition, null = given(PARTLY), PARTLY.null(given(PARTLY))
    assert isinstance(condition, dict) and isinstance(null, dict)
    assert torch.equal(null["state"], condition["state"]) and null["label"].tolist() == [3] * B
    with pytest.raises(UsageError, match="state must be given: this model was never trained without it"):
        PARTLY.nothing(B)


# --- what does not fit ---


@pytest.mark.parametrize(
    ("spec", "condition", "message"),
    [
        (BOTH, {"label": torch.zeros(B)}, "the condition must have label, state, got label"),
        (BOTH, {}, "the condition must have label, state, got none"),
        (BOTH, {**given(BOTH), "x": torch.zeros(B)}, "must have label, state, got label, state, x"),
        (BOTH, torch.zeros(B), r"must be a dict of label, state, got a tensor of shape \[6\]"),
        (class_labels(3), {"label": torch.zeros(B)}, "the condition must be one tensor, got a dict of label"),
        (UNCONDITIONAL, torch.zeros(B), "the condition must have no entries, got label"),
    ],
)
def test_another_form_is_rejected(spec: ConditionSpec, condition: Condition, message: str) -> None:
    for look in (spec.named, spec.null, lambda condition: spec.check(condition, B)):
        with pytest.raises(UsageError, match=message):
            look(condition)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("label", torch.zeros(5, dtype=torch.int64), r"label must have shape \[6\] for 6 examples, got \[5\]"),
        ("state", torch.zeros(5, 2, 2), r"state must have shape \[6, 2, 2\] for 6 examples, got \[5, 2, 2\]"),
        ("state", torch.zeros(6, 4), r"state must have shape \[6, 2, 2\] for 6 examples, got \[6, 4\]"),
        ("state", torch.zeros(6, 2, 2, dtype=torch.int64), "state must be floating point, got torch.int64"),
        ("label", torch.zeros(6), "label must be int64, got torch.float32"),
        ("label", torch.full((6,), 4), "label must be 0 ... 2, or 3 for null, got 4"),
        ("label", torch.full((6,), -1), "label must be 0 ... 2, or 3 for null, got -1"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(name: str, tensor: Tensor, message: str) -> None:
    condition = given(BOTH)
    BOTH.check(condition, B)
    network = MLPConfig(hidden=8, depth=1).build((2,), BOTH)
    with pytest.raises(UsageError, match=message):
        BOTH.check({**condition, name: tensor}, B)  # type: ignore[dict-item]
    with pytest.raises(UsageError, match=message):
        network(torch.zeros(B, 2), torch.zeros(B), torch.zeros(B), {**condition, name: tensor})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("entries", "single", "message"),
    [
        (BOTH.entries, True, "a condition of 2 entries is a dict, not a lone tensor"),
        ({n: Entry("label", classes=("a",)) for n in "xy"}, False, "at most one class label, got x and y"),
        ({"a.b": Entry("feature", (2,))}, False, "must be letters, digits and _, got 'a.b'"),
        ({"kind": Entry("label", classes=())}, True, "num_classes must be at least 1, got 0 for the label 'kind'"),
        ({"kind": Entry("label")}, True, "num_classes must be at least 1, got 0 for the label 'kind'"),
    ],
)
def test_a_spec_that_no_network_could_have_is_rejected(entries: dict[str, Entry], single: bool, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ConditionSpec(entries, single)


def test_specs_are_values_and_know_their_classes() -> None:
    assert class_labels(3) == class_labels(("0", "1", "2"))
    assert class_labels(3) != class_labels(3, drop=False) and class_labels(3) != BOTH
    assert BOTH.label == "label" and BOTH.num_classes == 3
    assert feature_vector(4).num_classes is feature_vector(4).label is None
    assert bool(BOTH) and not UNCONDITIONAL
    condition = given(BOTH)
    assert torch.equal(BOTH.class_label(condition), condition["label"])  # type: ignore[index,arg-type]
    assert feature_vector(2, 2).class_label(torch.zeros(B, 2, 2)) is UNCONDITIONAL.class_label(None) is None


# --- in a network ---


def awake(module: nn.Module) -> nn.Module:
    """Give every parameter a normal value: the velocity of an untrained network is zero whatever the condition."""
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=source) * 0.3)
    return module


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_a_feature_that_is_not_given_is_embedded_as_a_learned_vector(shape: tuple[int, ...]) -> None:
    embedding = awake(FeatureEmbedding(shape, 4))
    value = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    plain = embedding(value)
    value[1] = torch.nan
    embedded = embedding(value)
    assert torch.equal(embedded[1], embedding.null)
    assert torch.equal(embedded[[0, 2]], plain[[0, 2]])
    embedded.square().sum().backward()
    torch.testing.assert_close(embedding.null.grad, 2 * embedding.null.detach())
    assert all(bool(torch.isfinite(p.grad).all()) and bool(p.grad.any()) for p in embedding.parameters())
    for p in embedding.parameters():
        p.grad = None
    embedding(torch.full((3, *shape), torch.nan)).sum().backward()
    assert not embedding.inner.weight.grad.any() and embedding.null.grad.tolist() == [3.0] * 4


NETWORKS: list[tuple[NetworkConfig, tuple[int, ...]]] = [
    (MLPConfig(hidden=16, depth=1), (5,)),
    (DiTConfig(hidden=16, depth=1, heads=2), (3, 4, 4)),
]
networks = pytest.mark.parametrize(("config", "shape"), NETWORKS, ids=lambda value: getattr(value, "name", ""))


@networks
def test_each_entry_reaches_the_velocity_and_no_condition_is_nothing_given(
    config: NetworkConfig, shape: tuple[int, ...]
) -> None:
    network = awake(config.build(shape, BOTH))
    x, t, d, condition = torch.randn(B, *shape), torch.rand(B), torch.zeros(B), given(BOTH)
    assert isinstance(condition, dict)
    v, nothing = network(x, t, d, condition), network(x, t, d)
    assert torch.equal(nothing, network(x, t, d, BOTH.nothing(B)))
    assert torch.equal(nothing, network(x, t, d, network.null(condition)))
    for other in (
        {**condition, "label": (condition["label"] + 1) % 3},
        {**condition, "state": condition["state"] + 1},
        {**condition, "state": torch.full((B, 2, 2), torch.nan)},
    ):
        assert not torch.isclose(network(x, t, d, other), v).flatten(1).all(1).any()
    one_missing = {**condition, "state": condition["state"].clone()}
    one_missing["state"][2] = torch.nan
    assert torch.equal(network(x, t, d, one_missing)[[0, 1, 3, 4, 5]], v[[0, 1, 3, 4, 5]])


@networks
def test_a_feature_under_bf16_autocast_is_embedded_in_float32(config: NetworkConfig, shape: tuple[int, ...]) -> None:
    network = awake(config.build(shape, BOTH))
    x, t, d = torch.randn(B, *shape), torch.rand(B), torch.zeros(B)
    condition = where(torch.arange(B) < 3, BOTH.nothing(B), given(BOTH))
    plain = network.condition(t, d, condition)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(network.condition(t, d, condition), plain)
        v = network(x, t, d, condition)
    v.square().sum().backward()
    assert bool(torch.isfinite(v).all())
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in network.parameters())
    assert bool(network.condition.features["state"].null.grad.any())


@networks
@pytest.mark.parametrize("spec", [feature_vector(2, 2), BOTH, PARTLY], ids=["feature", "dict", "partly"])
def test_guidance_goes_from_nothing_given_towards_the_condition(
    spec: ConditionSpec, config: NetworkConfig, shape: tuple[int, ...]
) -> None:
    network = awake(config.build(shape, spec)).double()
    source = torch.Generator().manual_seed(0)
    x, t = torch.randn(B, *shape, generator=source).double(), torch.rand(B, generator=source).double()
    d, condition = torch.zeros(B).double(), given(spec)
    named = {name: tensor if name == "label" else tensor.double() for name, tensor in spec.named(condition).items()}
    condition = spec.of(named)
    if spec is not PARTLY:
        named = {name: torch.full_like(tensor, 3 if name == "label" else torch.nan) for name, tensor in named.items()}
    else:
        named["label"] = torch.full((B,), 3)
    v, v_null = network(x, t, d, condition), network(x, t, d, spec.of(named))
    largest = float(torch.stack([v, v_null]).detach().abs().max())
    for W in (-1.0, 0.0, 1.0, 1.5, 4.0):
        rounding = 1e-12 * largest * (1 + 2 * abs(W))  # one pass of both, as guiding makes, rounds otherwise than two
        close = {"rtol": 0.0, "atol": rounding}
        torch.testing.assert_close(guided_velocity(network, x, t, d, condition, W), v_null + W * (v - v_null), **close)


def test_a_network_that_takes_the_scale_gets_one_where_nothing_is_given() -> None:
    network = awake(MLPConfig(hidden=16, depth=1, guidance_input=True).build((5,), feature_vector(2, 2)))
    x, t, d = torch.randn(B, 5), torch.rand(B), torch.zeros(B)
    missing = torch.arange(B) % 2 == 0
    condition = where(missing, torch.full((B, 2, 2), torch.nan), torch.randn(B, 2, 2))
    W = torch.where(missing, 1.0, 2.5)
    assert torch.equal(guided_velocity(network, x, t, d, condition, 2.5), network(x, t, d, condition, W))


# --- in training ---


class Plain:
    """A network with no word for "nothing given"."""

    def __call__(self, x: Tensor, *rest: object) -> Tensor:
        return x


def test_entries_are_dropped_together_at_the_given_rate_and_others_never() -> None:
    count = 20_000
    draw = Draw(Keys(0), 0, count, slice(0, count))
    for spec in (BOTH, PARTLY):
        network, condition = MLPConfig(hidden=8, depth=1).build((2,), spec), given(spec, count)
        kept = torch.arange(count) % 4 == 0
        dropped = drop(network, condition, 0.3, draw, kept)
        assert isinstance(dropped, dict) and isinstance(condition, dict)
        lost = dropped["label"] == 3
        assert torch.equal(lost, (draw.uniform("label_drop") < 0.3) & ~kept)
        assert abs(float(lost[~kept].float().mean()) - 0.3) < 0.02
        assert torch.equal(dropped["label"][~lost], condition["label"][~lost])
        missing = dropped["state"].flatten(1).isnan()
        if spec is BOTH:
            assert torch.equal(missing, lost[:, None].expand_as(missing))
        else:
            assert not missing.any() and torch.equal(dropped["state"], condition["state"])
        assert equal(spec, drop(network, condition, 0.0, draw), condition)
    assert drop(network, None, 0.5, draw) is None


def test_a_network_without_null_cannot_have_conditions_dropped() -> None:
    draw, label = Draw(Keys(0), 0, B, slice(0, B)), torch.arange(B)
    assert drop(Plain(), label, 0.0, draw) is label
    with pytest.raises(UsageError, match=r"Plain has no method null\(condition\), which guidance and dropped"):
        drop(Plain(), label, 0.1, draw)


def moments(count: int, seed: int = 0) -> tuple[Batch, Draw]:
    """Return a batch whose data is its state, and the draw of a whole batch."""
    condition = given(BOTH, count, seed)
    assert isinstance(condition, dict)
    draw = Draw(Keys(seed), 0, count, slice(0, count))
    return Batch(condition["state"].flatten(1), draw.normal("noise", (4,)), condition), draw


def test_a_shortcut_models_targets_of_a_label_and_a_feature() -> None:
    """Guided half steps at the finest level, from "nothing given" of both entries, as the definition has them."""
    config = MLPConfig(hidden=16, depth=1)
    online, target = (awake(config.build((4,), BOTH, M=8)) for _ in range(2))
    batch, draw = moments(96)
    objective = Shortcut(M=8, guidance=1.5, share=0.5, label_drop=0.5)
    made = objective.targets(Networks(online, target), batch, draw, PhaseProgress(0, 1))
    query, finest = made.query, made.tag == 1
    x, t, c = query.x_t[finest], query.t[finest], rows(query.condition, finest)
    d, zero = torch.full_like(t, 1 / 8), torch.zeros_like(t)

    def guided(x: Tensor, t: Tensor) -> Tensor:
        v_null = target(x, t, zero, BOTH.nothing(len(t)))
        return v_null + 1.5 * (target(x, t, zero, c) - v_null)

    a = guided(x, t)
    b = guided(x + a / 8, t + d)
    torch.testing.assert_close(made.target[finest], ((a + b) / 2).detach())
    lost = same(query.condition, BOTH.nothing(96))
    assert bool(lost[made.tag == 0].any()) and not lost[made.tag > 0].any()
    assert isinstance(query.condition, dict) and torch.equal(query.condition["state"].isnan().all((1, 2)), lost)


def test_an_improved_shortcut_model_has_no_guidance_where_both_entries_are_missing() -> None:
    config = MLPConfig(hidden=16, depth=1, guidance_input=True)
    online, target = (awake(config.build((4,), BOTH, M=8)) for _ in range(2))
    batch, draw = moments(600)
    objective = ImprovedShortcut(M=8, label_drop=0.5, interval=0.0)
    made = objective.targets(Networks(online, target), batch, draw, PhaseProgress(0, 1))
    query, W = made.query, made.query.guidance
    lost = same(query.condition, BOTH.nothing(600))
    assert W is not None and bool(lost[made.tag == 0].any()) and bool(lost[made.tag > 1].any())
    assert bool((W[lost] == 1).all()) and bool((W[(made.tag > 1) & ~lost] > 1).any())
    guided = objective.draw_levels(draw, PhaseProgress(0, 1)) == GUIDED
    assert torch.equal(guided, made.tag == 1) and bool((W[guided] > 1).all()) and not lost[guided].any()
    x, t, c = query.x_t[guided], query.t[guided], rows(query.condition, guided)
    zero = torch.zeros_like(t)
    difference = target(x, t, zero, c) - target(x, t, zero, BOTH.nothing(len(t)))
    v = (batch.x1 - batch.x0)[guided] + (W[guided] - 1)[:, None] * difference
    torch.testing.assert_close(made.target[guided], v.detach())


@pytest.mark.parametrize("objective", [Shortcut(M=8), ImprovedShortcut(M=8, guidance_max=1.5)], ids=lambda o: o.name)
def test_a_method_learns_from_a_feature(objective: Shortcut | ImprovedShortcut) -> None:
    """The data is the state itself: given it, samples come nearer than the 1.4 of samples that are given nothing."""
    torch.manual_seed(0)
    config = replace(MLPConfig(hidden=48, depth=1, time_scale=16.0), guidance_input=objective.takes_guidance)
    network = config.build((4,), BOTH, M=8)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for step in range(150):
        batch, draw = moments(128, seed=step)
        objective.loss(Networks(network, network), batch, draw, PhaseProgress(step, 150)).rows.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    batch, _ = moments(500, seed=1_000)

    def apart(condition: Condition) -> float:
        drawn = sample(network, batch.x0, steps=objective.schedule(8), condition=condition)
        return math.sqrt(float((drawn - batch.x1).square().mean()))

    assert apart(batch.condition) < 0.8
    assert apart(network.null(batch.condition)) > 1.1
