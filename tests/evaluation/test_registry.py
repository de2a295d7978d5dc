"""A metric or a feature space is one file and one registry line: whatever reads scores then knows it."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from tests.evaluation.still import noise_of

from anystep.cli.tables import print_scores
from anystep.core.errors import UsageError
from anystep.core.random import Keys
from anystep.core.random import torch_generator as keyed
from anystep.data.base import Dataset
from anystep.evaluation.evaluate import evaluate
from anystep.evaluation.features import FEATURES
from anystep.evaluation.features.base import FeatureSpace
from anystep.evaluation.metrics import METRICS, Precision, choose_metrics, find_metric, metric_name
from anystep.evaluation.metrics.base import Metric, Moments, Probabilities
from anystep.evaluation.metrics.energy import Energy, energy_distance
from anystep.evaluation.metrics.frechet import Frechet, frechet_distance
from anystep.evaluation.scores import keep_scores, measured, parts
from anystep.report.curves import score_figure
from anystep.report.table1 import table_text
from anystep.report.tables import score_tables

SPACES = "data, classifier, inception, inception_paper, inception_spatial"


def images(n=120):
    rng = np.random.default_rng(0)
    return Dataset.from_arrays("noise", rng.integers(0, 256, (n, 4, 4, 1), dtype=np.uint8))


def points(n=300):
    return Dataset.from_arrays("points", np.random.default_rng(0).standard_normal((n, 3)).astype(np.float32))


def moments(rows):
    found = Moments()
    found.update(rows)
    return found.mean, found.covariance


@dataclass(frozen=True)
class MeanOffset(Metric):
    """How far the means are apart, to a power."""

    title = "Mean offset"
    better = "lower"
    distance = True
    usual = frozenset({"picture"})
    needs = frozenset({"moments"})

    power: float = 1.0

    def score(self, real, drawn, prepared):
        gap = np.linalg.norm(real.moments.mean - drawn.moments.mean)
        return {"": float(gap**self.power), "largest": float(abs(real.moments.mean - drawn.moments.mean).max())}


def test_a_new_metric_is_in_the_record_the_json_the_table_the_curves_and_the_report(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(METRICS, "mean_offset", MeanOffset(power=2))
    data = images()
    rows = evaluate(noise_of(data), data, steps=[1, 4], num=60)
    x = data.codec.fit(data).encode(data.read(np.arange(len(data))), None).flatten(1).numpy().astype(np.float64)
    drawn = noise_of(data)
    samples = drawn.decode(drawn.generate(steps=1, seed=0, index=range(60)))
    fake = data.codec.fit(data).encode(torch.as_tensor(samples), None).flatten(1).numpy().astype(np.float64)
    assert rows[0]["mean_offset"] == pytest.approx(((x.mean(0) - fake.mean(0)) ** 2).sum())
    assert rows[0]["protocol"]["metrics"]["mean_offset"] == {"space": "data", "power": 2}
    assert measured(rows) == ["frechet", "precision", "recall", "accuracy", "mean_offset"]
    assert parts(rows, "mean_offset") == {
        part: f"mean_offset_{part}" for part in ("largest", "floor", "floor_deviation")
    }  # fmt: skip

    keep_scores(tmp_path / "scores.json", rows)
    assert json.loads((tmp_path / "scores.json").read_text())["scores"] == rows
    print_scores(rows)
    printed = capsys.readouterr().out
    floors = [f"{rows[0][f'{name}_floor']:.3f}" for name in ("frechet", "mean_offset")]
    assert ["floor", *floors] in [line.split() for line in printed.splitlines()]
    assert f"{rows[0]['mean_offset']:.3f}" in printed
    titles = {axes.get_title(loc="left") for axes in score_figure(rows).axes}
    assert any("Mean offset" in text for text in titles)
    page = score_tables(rows)
    assert "Mean offset <span class=quiet>↓</span>" in page
    deviation = f"{rows[0]['mean_offset_floor_deviation']:.3f}"
    assert f"Mean offset {floors[1]} ± {deviation}; scores at or below it are equally good" in page
    assert f'<td class="n quiet">{floors[1]}</td>' in page.partition("<td>Floor</td>")[2]
    with pytest.raises(UsageError, match=r"mean_offset.*did you mean mean_offset"):
        find_metric("mean_ofset")


def test_a_comparisons_table_has_the_floor():
    row = {"method": "shortcut", "steps": 1, "seeds": [0], "mean": {"frechet": 0.4}, "spread": {"frechet": 0.0},
           "caution": None, "forward_units": 100, "floor": {"frechet": 0.1234}}  # fmt: skip
    text = table_text([row], "frechet")
    assert "\nfloor 0.123: as many examples drawn from the reference" in text
    assert ["floor", "0.123"] in [line.split() for line in text.splitlines()]


def marked_records():
    """Distances at most a deviation above the floor, and above that; then as in an earlier version."""
    new = {"method": "shortcut", "run": "a", "guidance": 1.0, "notes": [], "recall": 0.1,
           "frechet_floor": 0.1, "frechet_floor_deviation": 0.01, "protocol": {"metrics": {"frechet": {}}}}  # fmt: skip
    records = [new | {"steps": n, "frechet": score} for n, score in ((1, 0.1201), (4, 0.1099), (128, 0.0944))]
    return records, [{key: value for key, value in row.items() if "deviation" not in key} for row in records]


def test_scores_up_to_a_deviation_above_the_floor_are_marked(capsys):
    records, earlier = marked_records()
    print_scores(records)
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()]
    for row in (["1", "0.120", "0.100"], ["4", "0.110", "~", "0.100"], ["128", "0.094", "~", "0.100"]):
        assert row in rows
    assert ["floor", "0.100"] in rows
    assert (
        "drawn from the reference; its deviation: frechet 0.01\n~ at the floor: above it by at most its deviation"
        in printed
    )
    page = score_tables(records)
    assert [text[-5:] for text in page.split("<span class=mark>~</span>")[:-1]] == ["0.110", "0.094"]
    assert "~ at the floor: above it by at most its deviation" in page
    print_scores(earlier)
    printed = capsys.readouterr().out
    assert "~" not in printed + score_tables(earlier)
    assert ["floor", "0.100"] in [line.split() for line in printed.splitlines()]


def test_the_curves_have_the_floor_and_its_deviation():
    records, earlier = marked_records()
    (axes,) = [axes for axes in score_figure(records).axes if "Fr" in axes.get_title(loc="left")]
    assert list(axes.get_lines()[-1].get_ydata()) == [0.1, 0.1] and "dotted: the floor" in axes.get_title(loc="right")
    (band,) = axes.patches
    assert_allclose([band.get_y(), band.get_height()], [0.1, 0.01])
    axes = score_figure(earlier).axes[0]
    assert list(axes.get_lines()[-1].get_ydata()) == [0.1, 0.1] and not axes.patches


def test_floors_that_differ_have_a_column_and_no_row(capsys):
    records, _ = marked_records()
    print_scores([*records, records[0] | {"steps": 2, "frechet": 0.21, "frechet_floor": 0.2}])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert not any(row[:1] == ["floor"] for row in rows)
    assert ["2", "0.210", "~", "0.200", "0.100"] in rows and ["1", "0.120", "0.100", "0.100"] in rows


def test_a_comparisons_table_marks_means_at_the_floor():
    row = {"method": "shortcut", "seeds": [0], "spread": {"frechet": 0.0}, "forward_units": 100,
           "floor": {"frechet": 0.1}, "floor_deviation": {"frechet": 0.01}}  # fmt: skip
    flow = row | {"method": "flow_matching"}
    summary = [
        row | {"steps": 1, "mean": {"frechet": 0.12}, "caution": None},
        row | {"steps": 4, "mean": {"frechet": 0.11}, "caution": None},
        flow | {"steps": 1, "mean": {"frechet": 0.09}, "caution": "few steps"},
        flow | {"steps": 4, "mean": {"frechet": None}, "caution": None},
    ]
    text = table_text(summary, "frechet")
    lines = [line.split() for line in text.splitlines()]
    assert ["shortcut", "0.1100~", "0.1200", "100"] in lines
    assert ["flow", "matching", "–", "(0.0900)~", "100"] in lines
    assert ["floor", "0.1000", "0.1000"] in lines
    assert "equally good\n~ at the floor: above it by at most its deviation, 0.01" in text
    assert "~" not in table_text([one | {"floor_deviation": {}} for one in summary], "frechet")
    assert "floor" not in table_text([one | {"mean": {"recall": 0.5}} for one in summary], "recall")


def test_a_users_instance_is_scored_under_its_class_name():
    data = images()
    (row,) = evaluate(noise_of(data), data, steps=[1], num=30, metrics=[MeanOffset(power=3), Precision(k=5)])
    assert row["mean_offset"] > 0 and 0 <= row["precision"] <= 1
    assert row["protocol"]["metrics"]["precision"] == {"space": "data", "k": 5, "rows": 30}
    assert measured([row]) == ["precision", "mean_offset"]
    score_tables([row])
    print_scores([row])


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        ([MeanOffset], r"names or instances of Metric, got .*MeanOffset.*: pass MeanOffset\(\)"),
        ([3], "names or instances of Metric, got 3"),
        (["precision", Precision(k=5)], "two metrics are called 'precision'"),
        (
            ["precision@inseption"],
            f"features must be among {SPACES}, got 'inseption'; did you mean inception",
        ),
        (
            [MeanOffset("elsewhere")],
            f"mean_offset@elsewhere: features must be among {SPACES}, got 'elsewhere'",
        ),
        (["frechet@dat"], "did you mean data"),
    ],
)
def test_what_is_no_metric_is_an_error(requested, message):
    data = images()
    with pytest.raises(UsageError, match=message):
        evaluate(noise_of(data), data, steps=[1], num=20, metrics=requested)


def test_k_must_be_a_neighbour():
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        Precision(k=0)


def test_names_and_instances_go_together(monkeypatch):
    monkeypatch.setitem(FEATURES, "edges", FEATURES["data"])
    monkeypatch.setitem(METRICS, "fed", Frechet("edges"))
    assert metric_name(METRICS["recall"]) == "recall"
    assert metric_name(Frechet("edges")) == "fed"
    assert metric_name(Energy("edges")) == "energy@edges"
    chosen = choose_metrics(["precision@edges", "fed", "accuracy@edges", "frechet"])
    assert list(chosen) == ["frechet", "fed", "precision@edges", "accuracy@edges", "recall@edges"]
    assert chosen["precision@edges"] == Precision("edges")
    assert "fed" not in choose_metrics(None, "picture")  # a feature network is loaded only if it is named


def test_the_floor_is_the_distance_of_examples_drawn_with_replacement():
    data = points()
    (row,) = evaluate(noise_of(data), data, steps=[1], num=150, seed=4, rows=100, metrics=["frechet", "energy"])
    x = data.codec.fit(data).encode(data.read(np.arange(len(data))), None).double().numpy()
    index = (Keys(4).words(0, "floor", 150) % 300).astype(int)
    assert len(set(index)) < 150  # with replacement
    assert row["frechet_floor"] == pytest.approx(frechet_distance(*moments(x), *moments(x[index])), rel=1e-9)
    some = torch.randperm(300, generator=keyed(0, 0, "reference")).numpy()[:100]
    assert row["energy_floor"] == pytest.approx(energy_distance(x[some], x[index[:100]]), rel=1e-9)
    draws = [(Keys(4).words(draw, "floor", 150) % 300).astype(int) for draw in range(4)]
    deviation = np.std([frechet_distance(*moments(x), *moments(x[index])) for index in draws], ddof=1)
    assert row["frechet_floor_deviation"] == pytest.approx(deviation, rel=1e-6)
    deviation = np.std([energy_distance(x[some], x[index[:100]]) for index in draws], ddof=1)
    assert row["energy_floor_deviation"] == pytest.approx(deviation, rel=1e-6)
    (alone,) = evaluate(noise_of(data), data, steps=[1], num=150, seed=4, rows=100, metrics=["energy"])
    for key in ("energy", "energy_floor", "energy_floor_deviation"):
        assert alone[key] == row[key]
    old = replace(noise_of(data), key_version=1)
    (then,) = evaluate(old, data, steps=[1], num=150, seed=4, rows=100, metrics=["frechet"])
    assert then["frechet_floor"] == row["frechet_floor"] and then["frechet"] != row["frechet"]
    assert (then["protocol"]["key_version"], row["protocol"]["key_version"]) == (1, 2)


def test_the_floor_is_what_a_perfect_sampler_scores():
    """N of n examples of a Gaussian: both distances fall as 1/N, and the floor is near the score of new examples."""
    data = points(4000)
    rows = [
        evaluate(noise_of(data), data, steps=[1], num=num, metrics=["frechet"])[0] for num in (250, 1000)
    ]  # the data are standard normal, and so is noise
    assert 2 < rows[0]["frechet_floor"] / rows[1]["frechet_floor"] < 8
    for row in rows:
        assert 0.3 < row["frechet"] / row["frechet_floor"] < 3


class Halves:
    """An extractor with two outputs, and logits that are sure of the class of the brightest quarter."""

    def __init__(self):
        self.seen = []

    def __call__(self, stored):
        stored = stored.numpy()
        self.seen.append(stored)
        flat = stored.reshape(len(stored), -1).astype(np.float64)
        logits = 1000.0 * np.eye(4)[flat.reshape(len(flat), 4, 4).sum(2).argmax(1)]
        return {"top": stored[:, :2].astype(np.float64), "bottom": flat[:, 8:], "logits": logits}


def test_spaces_that_share_an_extractor_run_it_once_per_batch(monkeypatch):
    halves = Halves()
    for output in ("top", "bottom"):
        space = FeatureSpace(f"{output}_half", halves, output, resize="none", version="abc")
        monkeypatch.setitem(FEATURES, output, lambda *facts, space=space: space)
    data = images()
    names = ["frechet@top", "frechet@bottom", "precision@top", "frechet"]
    (row,) = evaluate(noise_of(data), data, steps=[1], num=60, batch=25, metrics=names)
    assert [len(seen) for seen in halves.seen] == [120, 25, 25, 10]
    assert {seen.dtype for seen in halves.seen} == {np.dtype(np.uint8)}
    real = data.read(np.arange(120)).numpy().reshape(120, -1).astype(float)
    fake = np.concatenate(halves.seen[1:]).reshape(60, -1).astype(float)
    assert row["frechet@bottom"] == pytest.approx(frechet_distance(*moments(real[:, 8:]), *moments(fake[:, 8:])))
    assert row["frechet@top"] == pytest.approx(frechet_distance(*moments(real[:, :8]), *moments(fake[:, :8])))
    record = row["protocol"]
    assert record["features"] == "raw_pixels, top_half, bottom_half"
    assert record["metrics"]["frechet@top"] == {"space": "top", "features_version": "abc"}
    assert row.keys() > {"frechet_floor", "frechet@top_floor", "frechet@bottom_floor"}
    assert measured([row]) == ["frechet", *names[:3]]


def test_a_space_may_have_samples_that_are_not_rounded(monkeypatch):
    halves = Halves()
    monkeypatch.setitem(FEATURES, "top", lambda *facts: FeatureSpace("top", halves, "top", rounded=False))
    data = images()
    (row,) = evaluate(noise_of(data), data, steps=[1], num=20, metrics=["frechet@top", "frechet"])
    drawn = noise_of(data)
    rounded = drawn.decode(drawn.generate(steps=1, seed=0, index=range(20)))
    found = halves.seen[1]
    assert found.dtype == np.float32 and (found < 0).any()
    assert_allclose(found.round().clip(0, 255), rounded)
    assert row["protocol"]["quantised"] == "uint8, none"


def test_features_that_are_not_installed_name_the_extra_before_anything_is_generated(monkeypatch):
    def lacking(*facts):
        raise UsageError("features 'inception' need the extra eval: pip install 'anystep[eval]'")

    monkeypatch.setitem(FEATURES, "inception", lacking)
    monkeypatch.setitem(METRICS, "fid", Frechet("inception"))
    data = images()
    g = noise_of(data)
    object.__setattr__(g, "generate", None)
    with pytest.raises(UsageError, match=r"^fid: features 'inception' need the extra eval: pip install"):
        evaluate(g, data, steps=[1], num=20, metrics=["frechet", "fid"])


@dataclass(frozen=True)
class ClassScore(Metric):
    """The inception score of one split (Salimans et al. 2016): exp of the mean KL(p(y|x) | p(y))."""

    title = "Class score"
    better = "higher"
    needs = frozenset({"logits"})

    def score(self, real, drawn, prepared):
        mean = drawn.logits.total / drawn.logits.count
        return {"": float(np.exp(-(mean * np.log(mean)).sum() - drawn.logits.entropy / drawn.logits.count))}


def test_logits_are_summed_over_all_samples(monkeypatch):
    """Sure logits that spread over the classes in fractions q score the exponential of q's entropy."""
    halves = Halves()
    monkeypatch.setitem(FEATURES, "top", lambda *facts: FeatureSpace("top", halves, "top"))
    data = images()
    (row,) = evaluate(noise_of(data), data, steps=[1], num=90, batch=40, metrics=[ClassScore("top")])
    classes = np.concatenate(halves.seen[1:]).reshape(90, 4, 4).sum(2, dtype=float).argmax(1)
    q = np.bincount(classes, minlength=4) / 90
    assert row["class_score@top"] == pytest.approx(np.exp(-(q * np.log(q)).sum()))
    with pytest.raises(ValueError, match="features 'raw_pixels' have no logits"):
        evaluate(noise_of(data), data, steps=[1], num=20, metrics=[ClassScore()])
    flat = Probabilities()
    flat.update(np.zeros((5, 8)))
    assert flat.entropy / 5 == pytest.approx(np.log(8))


def test_records_of_0_1_0_are_read():
    """They have no floor, and their protocols omit metrics without parameters."""
    old = {"method": "shortcut", "run": "a", "steps": 1, "guidance": 1.0, "frechet": 0.5, "recall": 0.1,
           "accuracy": 1.0, "accuracy_real": 0.98, "notes": [],
           "protocol": {"metrics": {"recall": {"k": 3, "rows": 9}}}}  # fmt: skip
    assert measured([old]) == ["frechet", "recall", "accuracy"]
    assert parts([old], "accuracy") == {"real": "accuracy_real"}
    page = score_tables([old])
    assert "0.980" in page and "Floor" not in page
    other = old | {"score": 2.5, "protocol": {"metrics": {"score": {"space": "data"}}}}
    assert measured([old, other])[-1] == "score"
    assert score_figure([other, other | {"steps": 4}]).axes
