"""The space `classifier`: training gives the same bytes twice, its accuracy is true, and records name the weights."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.evaluation.still import noise_of
from torch.nn import functional

from anystep.core.errors import DataError, UsageError
from anystep.core.random import Keys
from anystep.data import Dataset, Digits
from anystep.data.order import batch_indices
from anystep.evaluation.evaluate import evaluate
from anystep.evaluation.features.base import extract
from anystep.evaluation.features.classifier import ClassifierSpace, read_classifier
from anystep.evaluation.features.classifier_training import (
    BATCH,
    moved,
    train_classifier,
    usual_images,
)
from anystep.evaluation.metrics.frechet import frechet_distance
from anystep.evaluation.scores import keep_scores, read_scores

IMAGES = 6_400


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("classifier") / "digits.safetensors"
    train_classifier(Digits().open(), Digits().open("heldout"), path, images=IMAGES)
    return path


def by_hand(path: Path, pixels) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and logits in float64, from the two files alone."""
    facts = json.loads(path.with_suffix(".json").read_text())
    weights = {name: tensor.double() for name, tensor in load_file(path).items()}
    x = (torch.as_tensor(pixels).double().permute(0, 3, 1, 2) - facts["mean"]) / facts["std"]
    for layer in range(len(facts["widths"])):
        if layer:
            x = functional.max_pool2d(x, 2)
        x = functional.conv2d(x, weights[f"convolutions.{layer}.weight"], padding=1)
        scale, offset, mean, var = (
            weights[f"norms.{layer}.{name}"].reshape(1, -1, 1, 1)
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        x = ((x - mean) / (var + 1e-5).sqrt() * scale + offset).relu()
    features = x.flatten(2).mean(2)
    return features, features @ weights["last.weight"].T + weights["last.bias"]


def test_training_gives_the_same_bytes_twice_whatever_the_threads(trained, tmp_path):
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    torch.set_num_threads(2)
    again = tmp_path / "again.safetensors"
    train_classifier(Digits().open(), Digits().open("heldout"), again, images=IMAGES)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert again.read_bytes() == trained.read_bytes()
    assert again.with_suffix(".json").read_bytes() == trained.with_suffix(".json").read_bytes()
    other = train_classifier(Digits().open(), Digits().open("heldout"), again, images=IMAGES, seed=1)
    assert other.weights != read_classifier(trained)[0].weights


def test_the_accuracy_is_that_of_the_weights_on_the_examples_held_out(trained):
    heldout = Digits().open("heldout")
    _, logits = by_hand(trained, heldout.read(np.arange(len(heldout))))
    facts, _ = read_classifier(trained)
    assert facts.accuracy == float((logits.argmax(1).numpy() == heldout.labels).mean()) > 0.9
    assert (facts.data, facts.examples, facts.heldout, facts.size) == ("digits", 1438, 359, (8, 8, 1))
    assert facts.data_hash == Digits().open().fingerprint
    assert facts.weights == hashlib.sha256(trained.read_bytes()).hexdigest()


def test_features_are_the_input_of_the_last_layer(trained):
    data = Digits().open()
    codec = data.codec.fit(data)
    space = ClassifierSpace(trained, data)(codec, codec.shape(), torch.device("cpu"))
    pixels = data.read(np.arange(50))
    found = extract({"classifier": space}, {True: pixels})["classifier"]
    features, logits = by_hand(trained, pixels)
    assert found.values.shape == (50, 64)
    np.testing.assert_allclose(found.values, features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.logits, logits, rtol=1e-4, atol=1e-4)


def test_a_record_has_the_hash_of_the_weights_and_their_accuracy(trained, tmp_path):
    data = Digits().open()
    generator = noise_of(data)
    names = ["frechet@classifier", "recall@classifier", "frechet"]
    (row,) = evaluate(generator, data, steps=[1], num=100, metrics=names, classifier=trained)
    facts, _ = read_classifier(trained)
    stated = row["protocol"]["metrics"]["frechet@classifier"]
    assert stated == {
        "space": "classifier",
        "features_version": hashlib.sha256(trained.read_bytes()).hexdigest(),
        "features_data": "digits",
        "features_data_hash": data.fingerprint,
        "features_accuracy": facts.accuracy,
    }
    assert row["protocol"]["metrics"]["frechet"] == {"space": "data"}
    assert row["protocol"]["features"] == "raw_pixels, classifier"
    real, _ = by_hand(trained, data.read(np.arange(len(data))))
    fake, _ = by_hand(trained, generator.decode(generator.generate(steps=1, seed=0, index=range(100))))
    (a, cov_a), (b, cov_b) = ((each.numpy().mean(0), np.cov(each.numpy(), rowvar=False)) for each in (real, fake))
    assert row["frechet@classifier"] == pytest.approx(frechet_distance(a, cov_a, b, cov_b), rel=1e-3)
    assert row["frechet@classifier_floor"] < row["frechet@classifier"]
    other = tmp_path / "other.safetensors"
    train_classifier(data, Digits().open("heldout"), other, images=640)
    keep_scores(tmp_path / "scores.json", [row])
    keep_scores(
        tmp_path / "scores.json", evaluate(generator, data, steps=[1], num=100, metrics=names, classifier=other)
    )
    assert len(read_scores(tmp_path / "scores.json")) == 2  # another classifier measures something else


def wrong_json(path: Path) -> None:
    path.with_suffix(".json").write_text(json.dumps({"data": "digits"}))


def other_weights(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")


def other_layers(path: Path) -> None:
    save_file({"last.weight": torch.zeros(2, 2)}, path)
    facts = path.with_suffix(".json")
    values = json.loads(facts.read_text()) | {"weights": hashlib.sha256(path.read_bytes()).hexdigest()}
    facts.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), r"digits\.safetensors: no such file; anystep data classifier writes"),
        (lambda path: path.with_suffix(".json").unlink(), r"digits\.json: no such file"),
        (lambda path: path.with_suffix(".json").write_text("{"), r"digits\.json: describes no classifier \("),
        (wrong_json, r"digits\.json: describes no classifier \(.*missing"),
        (other_weights, r"digits\.safetensors: not the weights that digits\.json describes; train"),
        (other_layers, r"digits\.safetensors: not the weights of this classifier \(Missing key"),
    ],
)
def test_a_file_that_is_no_classifier_is_an_error_in_one_line(trained, tmp_path, damage, message):
    path = tmp_path / "digits.safetensors"
    for suffix in (".safetensors", ".json"):
        path.with_suffix(suffix).write_bytes(trained.with_suffix(suffix).read_bytes())
    damage(path)
    with pytest.raises(DataError, match=message) as error:
        read_classifier(path)
    assert len(str(error.value).splitlines()) == 1


def grey(*shape: int, kind: type = np.uint8):
    return np.random.default_rng(0).integers(256, size=shape).astype(kind)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Dataset.from_arrays("digits", grey(20, 8, 8, 3)), "images of 1 x 8 x 8, .* examples are 3 x 8 x 8"),
        (Dataset.from_arrays("digits", grey(20, 2, kind=np.float32)), "the model's examples are 2"),
        (replace(Digits().open(), name="letters"), r"classifies 'digits' \(10 classes\), and the .* is 'letters'"),
        (Dataset.from_arrays("digits", grey(20, 8, 8, 1), np.arange(20) % 3), r"is 'digits' \(3 classes\)"),
    ],
)
def test_a_classifier_of_other_data_is_an_error(trained, data, message):
    codec = data.codec.fit(data)
    with pytest.raises(UsageError, match=message):
        ClassifierSpace(trained, data)(codec, codec.shape(), torch.device("cpu"))


def test_a_classifier_and_its_metrics_go_together(trained):
    data = Digits().open()
    with pytest.raises(UsageError, match=r"frechet@classifier: features 'classifier' need .* --classifier FILE"):
        evaluate(noise_of(data), data, steps=[1], num=20, metrics=["frechet@classifier"])
    with pytest.raises(UsageError, match=r"is for metrics of its features: request one, e\.g\. frechet@classifier"):
        evaluate(noise_of(data), data, steps=[1], num=20, classifier=trained)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Dataset.from_arrays("rows", grey(9, 3, kind=np.float32)), "rows: a classifier needs images, .* codec vectors"),
        (Dataset.from_arrays("plain", grey(9, 8, 8, 1)), "plain: a classifier needs two classes or more, .* has 0"),
        (Dataset.from_arrays("one", grey(9, 8, 8, 1), np.zeros(9)), "needs two classes or more, .* has 1"),
        (Dataset.from_arrays("thin", grey(2, 1, 64, 1), np.arange(2)), "images of 64 x 1 pixels are too narrow"),
    ],
)
def test_data_without_classes_or_images_has_no_classifier(data, message, tmp_path):
    with pytest.raises(DataError, match=message):
        train_classifier(data, data, tmp_path / "no.safetensors")
    with pytest.raises(UsageError, match=r"must be NAME\.safetensors, got .*no\.json"):
        train_classifier(data, data, tmp_path / "no.json")
    assert not list(tmp_path.iterdir())


def test_every_pass_has_each_example_once_in_another_order():
    seen = np.concatenate([batch_indices(100, BATCH, update, Keys(0)) for update in range(25)])
    assert len(seen) == 25 * BATCH
    passes = seen[:1600].reshape(16, 100)
    assert (np.sort(passes) == np.arange(100)).all() and (passes[0] != passes[1]).any()
    assert [usual_images(count) for count in (1438, 54_000, 1_000_000)] == [60_000, 216_000, 400_000]


def test_images_are_moved_by_at_most_the_shift():
    pixels = torch.arange(2 * 5 * 6).reshape(2, 5, 6, 1)
    assert torch.equal(moved(pixels, 0, [7, 9]), pixels)
    assert torch.equal(moved(pixels, 1, [2, 1])[:, :-1], pixels[:, 1:])  # by 2 - 1 = 1 row and 1 - 1 = 0 columns
    left = moved(pixels, 1, [1, 3])  # 3 mod 3 - 1 = -1 column, the edge repeated
    assert torch.equal(left[:, :, 1:], pixels[:, :, :-1]) and torch.equal(left[:, :, 0], pixels[:, :, 0])
