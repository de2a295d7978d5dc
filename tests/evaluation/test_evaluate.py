"""`evaluate`: values that are known in closed form, a complete record with each, and errors before any work."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.toys import WithNull
from torch import nn

from anystep.data.base import Dataset, select_split
from anystep.evaluation.evaluate import evaluate
from anystep.evaluation.metrics import METRICS, frechet
from anystep.evaluation.metrics.energy import energy_distance
from anystep.evaluation.metrics.frechet import factor
from anystep.evaluation.protocol import code_version, describe_guidance, describe_schedule
from anystep.flow.condition import UNCONDITIONAL, class_labels
from anystep.flow.ladder import shortcut_schedule
from anystep.model.generator import Generator
from anystep.objectives import FlowMatching, Shortcut


class To(WithNull, nn.Module):
    """The velocity that ends every path at ``ends[label]`` ([classes, *shape]), or at ``ends[0]`` without classes."""

    def __init__(self, ends, num_classes=None):
        super().__init__()
        self.ends, self.num_classes = torch.as_tensor(ends), num_classes

    def forward(self, x, t, d, label=None, guidance=None):
        end = self.ends[torch.zeros(len(x), dtype=torch.long) if label is None else label]
        return (end - x) / (1 - t).reshape(-1, *[1] * (x.ndim - 1))


def points(n=400):
    rng = np.random.default_rng(0)
    return Dataset.from_arrays("points", (rng.standard_normal((n, 2)) * [1, 3] + [2, 0]).astype(np.float32))


def images(n=200, classes=4):
    """Bright stripes at the class's row, with noise."""
    rng = np.random.default_rng(0)
    label = np.arange(n) % classes
    array = rng.integers(0, 60, (n, 4, 4, 1), dtype=np.uint8)
    array[np.arange(n), label] += 180
    return Dataset.from_arrays("stripes", array, label)


def generator(data, network, objective=None):
    codec = data.codec.fit(data)
    return Generator(
        network,
        objective or Shortcut(),
        codec,
        codec.shape(),
        UNCONDITIONAL if network.num_classes is None else class_labels(data.class_names),
        source="run-7",
        ema="0.99",
    )


def stripes(data):
    """A generator of exact class means."""
    norm = data.codec.fit(data)
    x = norm.encode(data.read(np.arange(len(data))), None)
    means = torch.stack([x[data.labels == c].mean(0) for c in range(4)])
    return generator(data, To(means, 4))


def test_one_point_is_at_the_closed_form_distance():
    """All samples at c: no covariance, so |mu - c|^2 + Tr S in network units, whatever the number of samples."""
    data = points()
    norm, c = data.codec.fit(data), torch.tensor([[0.5, -1.0]])
    x = norm.encode(data.read(np.arange(len(data))), None).double().numpy()
    expected = ((x.mean(0) - c.numpy()) ** 2).sum() + np.trace(np.cov(x, rowvar=False))
    rows = evaluate(generator(data, To(c)), data, steps=[1, 4], num=200, batch=70)
    for row in rows:
        assert row["frechet"] == pytest.approx(expected, rel=1e-5)
        assert row["recall"] == 0
        assert row["energy"] == pytest.approx(energy_distance(x, c.numpy()), rel=0.1)
    assert [row["network_calls"] for row in rows] == [1, 4]


def test_class_means_are_recognised_and_the_other_metrics_show_what_is_missing():
    train, heldout = (select_split(images(), 0.25, which) for which in ("train", "heldout"))
    (row,) = evaluate(stripes(train), train, steps=[1], num=40, heldout=heldout)
    assert row["accuracy"] == 1.0
    assert row["accuracy_real"] > 0.95
    assert row["recall"] == 0
    assert row["frechet"] > 0.5


def test_the_record_is_complete_and_equal_for_equal_runs():
    train, heldout = (select_split(images(), 0.25, which) for which in ("train", "heldout"))
    options = {"steps": [1, 3], "num": 30, "heldout": heldout, "seed": 5, "rows": 25}
    once, again = (evaluate(stripes(train), train, **options) for _ in range(2))
    for row in [*once, *again]:
        assert row.pop("seconds") >= 0
    assert json.dumps(once) == json.dumps(again)
    row = once[1]
    assert {k: row[k] for k in ("method", "run", "steps", "guidance")} == {
        "method": "shortcut", "run": "run-7", "steps": 3, "guidance": 1.0,
    }  # fmt: skip
    record = row["protocol"]
    assert (record["reference_hash"], record["reference_num"]) == (train.fingerprint, len(train))
    assert (record["num"], record["seed"], record["ema"], record["labels"]) == (30, 5, "0.99", "balanced")
    assert (record["features"], record["resize"], record["quantised"]) == ("raw_pixels", "none", "uint8")
    assert record["schedule"] == "1/2, 2 x 1/4"
    assert record["metrics"]["recall"] == {"space": "data", "k": 3, "rows": 25}
    assert record["metrics"]["accuracy"]["heldout_hash"] == heldout.fingerprint
    assert record["torch_version"] == torch.__version__


def test_scores_do_not_depend_on_the_batch():
    data = points()
    g = generator(data, To(torch.tensor([[0.5, -1.0]])))
    counted = []
    (a,) = evaluate(g, data, steps=[2], num=31, batch=31)
    (b,) = evaluate(g, data, steps=[2], num=31, batch=4, progress=lambda *at: counted.append(at))
    assert a["frechet"] == pytest.approx(b["frechet"])
    assert counted[-1] == (62, 62)
    assert counted == sorted(counted)


def test_what_cannot_be_measured_is_null_with_a_note():
    data = images()
    (row,) = evaluate(stripes(data), data, steps=[1], num=20)
    assert row["accuracy"] is None
    assert "accuracy needs held-out real data, and none was given" in row["notes"]
    (row,) = evaluate(stripes(data), data, steps=[1], num=10, metrics=["frechet"])
    assert row["notes"] == ["frechet: 10 rows for 16 features, so a covariance is not of full rank"]
    broken = generator(points(), To(torch.tensor([[math.nan, 0.0]])))
    (row,) = evaluate(broken, points(), steps=[1], num=20)
    assert row["frechet"] is None
    assert row["notes"] == ["20 of 20 samples are not finite: the network has diverged"]
    json.dumps(row, allow_nan=False)


def test_accuracy_comes_with_recall():
    train, heldout = (select_split(images(), 0.25, which) for which in ("train", "heldout"))
    (row,) = evaluate(stripes(train), train, steps=[1], num=20, heldout=heldout, metrics=["accuracy"])
    assert [name for name in METRICS if name in row] == ["recall", "accuracy"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["frechett"]}, "got 'frechett'; did you mean frechet"),
        ({"metrics": []}, "at least one of frechet"),
        ({"metrics": ["accuracy"]}, "accuracy needs held-out real data"),
        ({"num": 3}, "num must be at least 4 for precision, got 3"),
        ({"steps": []}, "steps and guidance must have at least one value each"),
        ({"steps": [0]}, "at least 1, got 0"),
    ],
)
def test_a_wrong_request_is_an_error(options, message):
    data = images()
    with pytest.raises(ValueError, match=message):
        evaluate(stripes(data), data, **({"steps": [1], "num": 20} | options))


def test_a_reference_of_another_shape_is_an_error():
    wide = Dataset.from_arrays("wide", np.zeros((20, 4, 8, 1), np.uint8))
    with pytest.raises(ValueError, match=r"'wide' has examples of shape \(1, 4, 8\), the model's are \(1, 4, 4\)"):
        evaluate(stripes(images()), wide, steps=[1], num=20)
    with pytest.raises(ValueError, match=r"'points' does not fit the model: .* uint8 images .*, got float32 \[1, 2\]"):
        evaluate(stripes(images()), points(), steps=[1], num=20)


@pytest.mark.parametrize("rows", [400, 5000])
def test_a_set_sorted_by_class_covers_itself(rows):
    """Two modes far apart, one after the other: 200 samples of both are compared with 200 real examples of both.

    Against the first 200 examples alone precision would be one half.
    """
    rng = np.random.default_rng(0)
    one = rng.standard_normal((500, 2)).astype(np.float32)
    data = Dataset.from_arrays("sorted", np.concatenate([one, one + 50]), np.repeat([0, 1], 500))

    def real(*, condition, **rest):
        """Real examples of the requested classes."""
        index = 500 * condition.numpy() + rng.integers(500, size=len(condition))
        return data.codec.fit(data).encode(data.read(index), None)

    g = generator(data, To(torch.zeros(2, 2), 2))
    object.__setattr__(g, "generate", real)
    (row,) = evaluate(g, data, steps=[1], num=200, rows=rows, metrics=["precision", "recall", "energy"])
    assert row["precision"] > 0.9 and row["recall"] > 0.9
    assert row["energy"] < 0.05


def test_the_references_root_is_computed_once_for_all_numbers_of_steps(monkeypatch):
    data, taken = points(), []
    monkeypatch.setattr(frechet, "factor", lambda cov: taken.append(1) or factor(cov))
    evaluate(generator(data, To(torch.zeros(1, 2))), data, steps=[1, 2, 4], num=20)
    assert taken == [1]


def test_guidance_of_a_record_is_the_number_in_effect():
    """As requested, else as trained in, else none; the protocol records how it came about."""
    data = images()
    for objective, requested, steps, number in (
        (Shortcut(guidance=1.5), None, 1, 1.5),
        (Shortcut(guidance=1.5), 2.0, 128, 2.0),
        (Shortcut(), None, 1, 1.0),
        (FlowMatching(), 3.0, 1, 3.0),
    ):
        g = replace(stripes(data), objective=objective, network=To(torch.zeros(5, 1, 4, 4), 4))
        (row,) = evaluate(g, data, steps=[steps], num=10, guidance=requested, metrics=["frechet"])
        assert row["guidance"] == number
        built_in = objective.name == "shortcut" and objective.guidance != 1
        assert ("trained in" in str(row["protocol"]["guidance"])) == built_in


def test_schedules_and_guidance_in_words():
    assert describe_schedule(shortcut_schedule(6)) == "2 x 1/4, 4 x 1/8"
    assert describe_schedule(FlowMatching().schedule(3)) == "3 x 1/3 (d = 0)"
    assert describe_guidance(FlowMatching(), 2.0, [2.0] * 4) == 2.0
    trained = Shortcut(guidance=1.5)
    assert describe_guidance(trained, None, [1.0] * 4) == ("as trained: W = 1.5 trained in; sampling W by step 4 x 1")
    assert describe_guidance(trained, 2.0, [2.0]).startswith("asked 2: W = 1.5 trained in")


def test_the_code_is_the_package_and_a_commit():
    found = code_version()
    assert found["package"] and (found["commit"] is None) == (found["dirty"] is None)
    assert found["commit"] is None or len(found["commit"]) == 40
