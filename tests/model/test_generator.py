"""A sample depends on its seed and number, and on nothing else that is generated with it."""

import numpy as np
import pytest
import torch
from tests.toys import WithNull, feature_vector
from torch import nn

from anystep.codecs import Pixels
from anystep.core.errors import UsageError
from anystep.core.random import Keys
from anystep.flow.condition import UNCONDITIONAL, ConditionSpec, Entry, class_labels
from anystep.flow.ladder import Step, instantaneous_schedule
from anystep.model.generator import Generator
from anystep.objectives import FlowMatching, ImprovedShortcut, Shortcut
from anystep.objectives.consistency_training import ConsistencyTraining


class Toward(WithNull, nn.Module):
    """The velocity that carries any x to its class's constant image: c = label / 10, or -1 without a class."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.num_classes = num_classes

    def forward(self, x, t, d, label=None, guidance=None):
        end = torch.zeros(len(x)) if label is None else torch.where(label == self.num_classes, -1.0, label / 10)
        return (end - x.flatten(1).mean(1)).reshape(-1, 1, 1, 1).expand_as(x) / (1 - t).reshape(-1, 1, 1, 1)


class Mixing(WithNull, nn.Module):
    """Any smooth network: what a sample becomes depends on every pixel of its noise."""

    num_classes = 10

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Linear(16, 16)

    def forward(self, x, t, d, label=None, guidance=None):
        return torch.tanh(self.layer(x.flatten(1)) + label[:, None]).reshape(x.shape)


class Still(nn.Module):
    """No velocity: every x is its own end."""

    def forward(self, x, t, d, label=None, guidance=None):
        return torch.zeros_like(x)


def make(network, objective=None, conditions=None):
    classes = getattr(network, "num_classes", None)
    conditions = conditions or (UNCONDITIONAL if classes is None else class_labels(classes))
    codec = Pixels().fitted(size=(4, 4, 1), mean=127.5, std=127.5)
    return Generator(network, objective or FlowMatching(), codec, (1, 4, 4), conditions)


def test_noise_depends_on_seed_and_number_alone():
    g = make(Mixing())
    many = g.noise(3, range(50))
    torch.testing.assert_close(g.noise(3, [49, 7]), many[[49, 7]], rtol=0, atol=0)
    assert not torch.equal(g.noise(4, [7]), many[[7]])
    assert abs(float(g.noise(0, range(2000)).mean())) < 4 / (2000 * 16) ** 0.5


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_samples_do_not_depend_on_their_number_or_batch(batch):
    g = make(Mixing(), Shortcut())
    all_of_them = g.generate(steps=3, seed=1, index=range(20))
    torch.testing.assert_close(g.generate(steps=3, seed=1, index=range(12), batch=batch), all_of_them[:12])
    torch.testing.assert_close(g.generate(steps=3, seed=1, index=[13], batch=batch), all_of_them[13:14])


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_samples_of_a_stochastic_method_do_not_depend_on_their_number_or_batch_either(batch):
    g = make(Mixing(), ConsistencyTraining())
    all_of_them = g.generate(steps=3, seed=1, index=range(20))
    torch.testing.assert_close(g.generate(steps=3, seed=1, index=range(12), batch=batch), all_of_them[:12])
    torch.testing.assert_close(g.generate(steps=3, seed=1, index=[17, 13], batch=batch), all_of_them[[17, 13]])


def test_renoising_is_keyed_by_seed_number_and_step():
    """A network that sees each x as data (v = 0, so x1hat = x) leaves the sum of the noises: t = 0, 1/2, 3/4."""
    g = make(Still(), ConsistencyTraining())
    noise, index = g.noise(5, [4, 9]), [4, 9]
    plan = g.plan([Step(0.0, 0.5, 0.0), Step(0.5, 0.25, 0.0), Step(0.75, 0.25, 0.0)])
    first, second = (torch.stack([Keys(5).normal(i, f"renoise/{n}", (1, 4, 4)) for i in index]) for n in (0, 1))
    expected = 0.75 * (0.5 * noise + 0.5 * first) + 0.25 * second
    torch.testing.assert_close(g.generate(steps=plan, seed=5, index=index), expected)
    assert not torch.isclose(g.generate(steps=plan, noise=noise, seed=6, index=index), expected).any()
    x = g.generate(steps=plan, noise=noise, seed=5)
    torch.testing.assert_close(x, g.generate(steps=plan, noise=noise, seed=5, index=[0, 1]))


def test_samples_with_one_number_are_renoised_alike():
    """Points of an interpolation differ in their start only: here by 1/2 of it after a step from t = 0 to 1/2."""
    g = make(Still(), ConsistencyTraining())
    noise = g.noise(0, range(3))
    drawn = g.generate(steps=2, noise=noise, index=[8, 8, 8])
    torch.testing.assert_close(drawn - drawn[:1], (noise - noise[:1]) / 2)


def test_each_sample_has_a_number():
    g = make(Still(), ConsistencyTraining())
    with pytest.raises(ValueError, match="index must have one number per noise, 3 of them, got 2"):
        g.generate(steps=2, noise=g.noise(0, range(3)), index=[0, 1])


def test_labels_are_balanced_and_reach_the_network():
    g = make(Toward())
    x = g.generate(steps=1, seed=0, index=range(30))
    means = x.flatten(1).mean(1)
    torch.testing.assert_close(means, torch.arange(30) % 10 / 10, atol=1e-5, rtol=0)
    assert torch.bincount(g.usual_condition(range(30))).tolist() == [3] * 10
    one = g.generate(steps=1, seed=0, index=range(4), condition=7)
    torch.testing.assert_close(one.flatten(1).mean(1), torch.full((4,), 0.7), atol=1e-5, rtol=0)
    each = g.generate(steps=1, seed=0, index=range(2), condition=np.array([1, 9]))
    torch.testing.assert_close(each.flatten(1).mean(1), torch.tensor([0.1, 0.9]), atol=1e-5, rtol=0)


def test_guidance_goes_beyond_the_label_and_costs_a_second_pass():
    """The class end is c, the null end -1: scale W ends at -1 + W (c + 1)."""
    g = make(Toward())
    x = g.generate(steps=1, seed=0, index=[0], condition=5, guidance=2.0)
    assert float(x.mean()) == pytest.approx(-1 + 2 * 1.5, abs=1e-5)
    assert g.plan(4).network_calls == 4
    assert g.plan(4, guidance=2.0).network_calls == 8


class Scaled(Toward):
    """Takes W as an input: its end is -1 + W (c + 1), and it records the batch sizes."""

    takes_guidance = True

    def __init__(self, num_classes=10):
        super().__init__(num_classes)
        self.rows = []

    def forward(self, x, t, d, label=None, guidance=None):
        self.rows.append(len(x))
        end = -1 + (1 if guidance is None else guidance) * torch.where(label == self.num_classes, 0.0, label / 10 + 1)
        return (end - x.flatten(1).mean(1)).reshape(-1, 1, 1, 1).expand_as(x) / (1 - t).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("scale", [None, 0.0, 1.0, 2.0, 4.5])
def test_a_network_with_the_scale_as_input_is_evaluated_once_per_step(scale):
    g = make(Scaled(), ImprovedShortcut(M=8))
    plan = g.plan(4, guidance=scale)
    assert plan.network_calls == 4 and plan.caution is None
    x = g.generate(steps=plan, num=3, condition=5)
    assert g.network.rows == [3] * 4
    W = 1 if scale is None else scale
    torch.testing.assert_close(x.flatten(1).mean(1), torch.full((3,), -1 + W * 1.5), atol=1e-4, rtol=0)
    assert "outside 1 ... 4.5" in g.plan(4, guidance=5.0).caution


def test_a_scale_of_zero_samples_from_no_class():
    x = make(Toward()).generate(steps=1, num=1, guidance=0.0)
    assert float(x.mean()) == pytest.approx(-1, abs=1e-5)


STATE = {"kind": Entry("label", (), ("a", "b", "c")), "state": Entry("feature", (2,))}


class Stated(nn.Module):
    """The velocity that carries any x to the sum of its state plus its kind, or to -1 where no state is given."""

    def forward(self, x, t, d, condition=None, guidance=None):
        end = (condition["state"].sum(1) + condition["kind"]).nan_to_num(nan=-1.0)
        return (end - x.flatten(1).mean(1)).reshape(-1, 1, 1, 1).expand_as(x) / (1 - t).reshape(-1, 1, 1, 1)


def test_a_condition_of_several_entries_reaches_the_network_example_by_example():
    g = make(Stated(), conditions=ConditionSpec(STATE, single=False))
    kind, state = torch.tensor([2, 0, 1, 1, 0]), torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    drawn = g.generate(steps=2, seed=0, index=range(5), condition={"kind": kind, "state": state}, batch=2)
    torch.testing.assert_close(drawn.flatten(1).mean(1), kind + state.sum(1), atol=1e-5, rtol=0)
    usual = g.usual_condition([4, 0, 2])
    assert usual["kind"].tolist() == [1, 0, 2] and bool(usual["state"].isnan().all())
    torch.testing.assert_close(g.generate(steps=1, seed=0, index=[4]).mean(), torch.tensor(-1.0), atol=1e-5, rtol=0)
    with pytest.raises(UsageError, match=r"kind must be in 0\.\.2, got 3"):
        g.generate(steps=1, seed=0, index=range(5), condition={"kind": kind + 1, "state": state})
    with pytest.raises(UsageError, match=r"state must have shape \[5, 2\] for 5 examples, got \[4, 2\]"):
        g.generate(steps=1, seed=0, index=range(5), condition={"kind": kind, "state": state[:4]})
    with pytest.raises(UsageError, match=r"the condition must be a dict of kind, state, got a tensor of shape \[5\]"):
        g.generate(steps=1, seed=0, index=range(5), condition=1)


def test_a_feature_may_be_an_array():
    class End(nn.Module):
        def forward(self, x, t, d, condition=None, guidance=None):
            return (condition.reshape(x.shape) - x) / (1 - t).reshape(-1, 1, 1, 1)

    g = make(End(), conditions=feature_vector(16))
    state = np.random.default_rng(0).standard_normal((3, 16))
    drawn = g.generate(steps=1, seed=0, index=range(3), condition=state)
    np.testing.assert_allclose(drawn.flatten(1), state, atol=1e-5)


def test_what_is_never_dropped_must_be_given():
    entries = STATE | {"state": Entry("feature", (2,), drop=False)}
    g = make(Stated(), conditions=ConditionSpec(entries, single=False))
    with pytest.raises(UsageError, match="state must be given: this model was never trained without it"):
        g.generate(steps=1, num=1)


def test_decode_returns_pixels():
    g = make(Toward())
    pixels = g.decode(torch.tensor([-2.0, -1.0, 0.1, 1.0, 2.0]).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4))
    assert pixels.dtype == np.uint8
    assert pixels[:, 0, 0, 0].tolist() == [0, 0, 140, 255, 255]


def test_explicit_steps_and_a_callback():
    seen = []
    g = make(Mixing(), Shortcut())
    g.generate(
        steps=instantaneous_schedule(4),
        num=5,
        batch=3,
        callback=lambda n, step, x: seen.append((n, step.d, len(x))),
    )
    assert seen == [(n, 0.0, rows) for rows in (3, 2) for n in range(4)]


@pytest.mark.parametrize(
    ("classes", "options", "message"),
    [
        (10, {"condition": 12}, r"label must be in 0\.\.9, got 12"),
        (10, {"condition": -1}, r"label must be in 0\.\.9, got -1"),
        (10, {"condition": [1, 2, 3]}, r"label must have shape \[2\] for 2 examples, got \[3\]"),
        (10, {"condition": 10}, r"label must be in 0\.\.9, got 10"),
        (None, {"condition": 1}, "a condition was given, but this model is unconditional"),
        (None, {"guidance": 2.0}, "guidance 2 needs classes"),
        (10, {"steps": 0}, "at least 1, got 0"),
        (10, {"batch": 0}, "batch must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_generated_is_an_error(classes, options, message):
    with pytest.raises(ValueError, match=message):
        make(Toward(classes)).generate(**{"steps": 1, "seed": 0, "index": range(2)} | options)


def test_a_model_trained_with_guidance_is_not_guided_twice_unless_allowed():
    g = make(Toward(), Shortcut(guidance=1.5))
    with pytest.raises(ValueError, match="guide twice"):
        g.plan(4, guidance=2.0)
    assert g.plan(4, guidance=2.0, twice=True).guidance == [2.0] * 4
    assert g.plan(4).network_calls == 4
    assert g.plan(128).network_calls == 256
    assert make(Toward(None), Shortcut(guidance=1.5)).plan(128).network_calls == 128
