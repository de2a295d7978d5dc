"""Runs on data that is conditioned on features: samples follow them, guidance sharpens, null is the marginal."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from anystep import Generator, Npz, RunError, UsageError, evaluate, find_recipe, load, sample, train
from anystep.cli.main import main
from anystep.evaluation.reference import open_heldout
from anystep.flow.coupling import CouplingConfig
from anystep.flow.ladder import instantaneous_schedule
from anystep.objectives import FlowMatching, Reflow
from anystep.run import checkpoint
from anystep.run.config import Config
from anystep.run.facts import DataFacts
from anystep.training.examples import DataExamples

#: x = A z + noise, z the feature in units of its deviation
A = np.array([[200.0, 0.0], [150.0, 150.0], [0.0, -180.0]])
NOISE = 0.3
CENTRE, SPREAD = np.array([1013.0, 0.3]), np.array([20.0, 0.01])


def write(path: Path, rows: int = 2000, classes: bool = False) -> Path:
    """Write vectors, the feature `state` that they follow, a class that shifts them, and a feature `other`."""
    rng = np.random.default_rng(0)
    z, label = rng.normal(size=(rows, 2)), np.arange(rows) % 3
    noise = NOISE * rng.normal(size=(rows, 3)) * np.abs(A).sum(1)
    vectors = z @ A.T + noise + (300 * (label[:, None] - 1) if classes else 0)
    np.savez(path, vectors=vectors, state=CENTRE + SPREAD * z, labels=label, other=rng.normal(size=(rows, 2, 2)))
    return path


def config(path: Path, images: int = 1280, batch: int = 128, **options: Any) -> Config:
    base = find_recipe("vectors-shortcut")
    return replace(
        base,
        data=Npz(
            path=str(path), **{"images": "vectors", "labels": None, "conditions": ("state",), "heldout": 0.1} | options
        ),
        objective=FlowMatching(label_drop=0.2),
        network=replace(base.network, hidden=64, depth=2, step_encoding="none"),
        optimizer=replace(base.optimizer, lr=4e-3, warmup=1000),
        ema=replace(base.ema, evaluation=0.98),
        training=replace(base.training, images=images, batch=batch, device="cpu", precision="float32"),
        checkpoint=replace(base.checkpoint, every=640),
        preview=replace(base.preview, num=0),
    )


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 500 updates on x = A c + noise."""
    place = tmp_path_factory.mktemp("features")
    train(config(write(place / "set.npz", 8000), images=500 * 128), place / "run")
    return place / "run"


def drawn(generator: Generator, state: np.ndarray | None, guidance: float | None = None) -> np.ndarray:
    x = generator.generate(steps=16, num=1000 if state is None else len(state), condition=state, guidance=guidance)
    return np.asarray(generator.decode(x))


def test_samples_follow_a_feature_in_the_data_s_unit(followed: Path) -> None:
    """At c, the mean is A c; the null condition gives the marginal; guidance W sharpens."""
    generator, z = load(followed, device="cpu"), np.random.default_rng(1).normal(size=(1000, 2))
    samples, wanted = drawn(generator, CENTRE + SPREAD * z), z @ A.T
    deviation = np.sqrt((A**2).sum(1) + (NOISE * np.abs(A).sum(1)) ** 2)
    for column in range(3):
        best = wanted[:, column].std() / deviation[column]
        assert np.corrcoef(samples[:, column], wanted[:, column])[0, 1] == pytest.approx(best, abs=0.05)
    marginal = drawn(generator, None)
    np.testing.assert_allclose(marginal.std(0), deviation, rtol=0.15)
    np.testing.assert_allclose(marginal.mean(0) / deviation, 0, atol=0.15)
    lacking = drawn(generator, np.full((1000, 2), np.nan))
    np.testing.assert_array_equal(lacking, marginal)
    np.testing.assert_array_equal(drawn(generator, np.tile([np.nan, 26.0], (1000, 1))), marginal)

    one = np.tile(CENTRE + SPREAD * [1.0, 0.0], (1000, 1))
    plain, guided = drawn(generator, one), drawn(generator, one, guidance=2.0)
    assert plain[:, 0].mean() == pytest.approx(200, rel=0.15)
    assert guided[:, 0].mean() > plain[:, 0].mean() + 20
    assert guided[:, 0].std() < 0.9 * plain[:, 0].std()


def test_raw_features_may_be_of_any_number_type(followed: Path) -> None:
    generator, state = load(followed, device="cpu"), np.array([[30, 0], [28, 1]])
    forms = [state.astype(np.uint8), torch.from_numpy(state), state.astype(float), state.tolist()]
    samples = [generator.generate(steps=2, num=2, condition=form) for form in forms]
    assert all(torch.equal(sample, samples[0]) for sample in samples)


def test_scores_are_of_the_conditions_of_held_out_rows(followed: Path) -> None:
    source = config(followed.parent / "set.npz").data
    reference, held = source.open("train"), open_heldout(source)
    generator = load(followed, device="cpu")
    records = [
        evaluate(generator, reference, steps=[8], num=300, metrics=["frechet"], heldout=data)[0]
        for data in (held, None)
    ]
    labels = [record["protocol"]["labels"] for record in records]
    assert labels == ["conditions of 300 held-out rows", "conditions of 300 training rows"]
    assert records[0]["frechet"] != records[1]["frechet"] and records[0]["frechet"] < 0.2


@pytest.mark.parametrize("options", [{}, {"labels": "labels", "conditions": ("state", "other")}], ids=["lone", "dict"])
def test_a_resumed_run_is_the_one_that_was_not_interrupted(tmp_path: Path, options) -> None:
    whole = config(write(tmp_path / "set.npz", classes=True), **options)
    half = replace(whole, training=replace(whole.training, images=640))
    whole, half = (replace(one, optimizer=replace(one.optimizer, decay=0.0)) for one in (whole, half))
    train(whole, tmp_path / "whole")
    train(half, tmp_path / "parts")
    train(whole, tmp_path / "parts", resume=True)
    one, other = (load(tmp_path / run, device="cpu").network.state_dict() for run in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)


ELSEWHERE = """
from anystep.cli.main import main
for words in (
    "sample run --steps 2 --condition given.npz --label 1 --format npz",
    "evaluate run --steps 2 --num 64 --metrics frechet",
):
    assert main(words.split()) == 0, words
"""


def test_a_dict_of_conditions_through_every_verb_in_a_new_process(tmp_path: Path) -> None:
    """Train with coupling by class, then load, sample and evaluate elsewhere."""
    base = config(write(tmp_path / "set.npz", classes=True), labels="labels", conditions=("state", "other"))
    train(replace(base, coupling=CouplingConfig(batches=2, per_class=True)), tmp_path / "run")
    np.savez(tmp_path / "given.npz", state=np.tile(CENTRE, (6, 1)), other=np.zeros((6, 2, 2)))
    subprocess.run([sys.executable, "-c", ELSEWHERE], check=True, cwd=tmp_path, capture_output=True)
    samples = np.load(tmp_path / "run/samples/samples_2.npz")
    assert samples["samples"].shape == (6, 3) and samples["labels"].tolist() == [1] * 6
    generator = load(tmp_path / "run", device="cpu")
    given = {"label": torch.ones(6, dtype=torch.int64), "state": np.tile(CENTRE, (6, 1)), "other": np.zeros((6, 2, 2))}
    again = generator.decode(generator.generate(steps=2, num=6, condition=given))
    np.testing.assert_allclose(samples["samples"], again, rtol=1e-5, atol=1e-3)
    (record,) = json.loads((tmp_path / "run/scores.json").read_text())["scores"]
    assert record["protocol"]["labels"] == "conditions of 64 held-out rows"


def test_pairs_read_the_conditions_of_their_rows(tmp_path: Path) -> None:
    """Reflow's teacher carries noise i under the condition of the row that the pair names."""
    base = replace(config(write(tmp_path / "set.npz"), images=2560), objective=Reflow(pairs=64, pair_steps=4))
    train(base, tmp_path / "run")
    pairs = load_file(tmp_path / "run/pairs/pairs-00000.safetensors")
    assert set(pairs) == {"x0", "x1", "row"}
    facts = DataFacts.read(tmp_path / "run")
    teacher = base.network.build(facts.shape, facts.conditions)
    teacher.load_state_dict(checkpoint.read(checkpoint.listing(tmp_path / "run/checkpoints")[-1][1]).groups["teacher"])
    given = DataExamples(base.data.open("train"), facts.codec, facts.condition_codecs).condition(pairs["row"].numpy())
    with torch.no_grad():
        again = [sample(teacher, pairs["x0"], steps=instantaneous_schedule(4), condition=c) for c in (given, None)]
    torch.testing.assert_close(again[0], pairs["x1"])
    assert (again[1] - pairs["x1"]).abs().max() > 1e-3


def test_conditions_that_do_not_fit_are_one_line(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("set.npz"))
    train(config(Path("set.npz"), images=256), "one")
    train(config(Path("set.npz"), images=256, conditions=("state", "other"), drop=False), "kept")
    np.savez("one.npz", anything=np.zeros((4, 2)))
    np.savez("short.npz", state=np.zeros((4, 2)), other=np.zeros((3, 2, 2)))
    np.savez("lacks.npz", state=np.zeros((4, 2)))
    np.savez("wide.npz", feature=np.zeros((4, 3)))
    np.savez("nan.npz", state=np.full((4, 2), np.nan), other=np.zeros((4, 2, 2)))
    Path("text.npz").write_text("no arrays")
    assert main(["sample", "one", "--steps", "1", "--condition", "one.npz", "--format", "npz"]) == 0
    for words, message in (
        ("one --condition one.npz --num 5", "--condition has no row for sample 4: feature has 4 rows"),
        ("one --condition one.npz --refine 4", "--condition has no row for sample 4: feature has 4 rows"),
        ("one --condition wide.npz", "feature must have shape [4, 2] for 4 examples, got [4, 3]"),
        ("one --condition text.npz", "cannot read --condition text.npz"),
        ("one --condition gone.npz", "cannot read --condition gone.npz"),
        ("one --label 1", "--label 1 needs classes, and this model is conditioned on features alone"),
        ("kept --condition lacks.npz", "lacks.npz has no array other, which this model is conditioned on"),
        ("kept --condition short.npz", "--condition has no row for sample 3: other has 3 rows"),
        ("kept --condition nan.npz", "state must be given, got NaN: this model was never trained without it"),
        ("kept --condition short.npz --guidance 2", "no row for sample 3"),
        ("kept", "state must be given: this model was never trained without it"),
    ):
        capsys.readouterr()
        assert main(["sample", *words.split(), "--steps", "1"]) == 2
        error = capsys.readouterr().err
        assert message in error and error.strip().count("\n") == 0, error
    generator = load("kept", device="cpu")
    with pytest.raises(UsageError, match=r"guidance 2 needs a condition that training drops at times: data\.drop"):
        generator.plan(1, guidance=2.0)
    for given, message in (
        ({"state": torch.zeros(2, 2)}, "the condition must have state, other, got state"),
        (torch.zeros(2, 2), "the condition must be a dict of state, other, got a tensor"),
        ({"state": torch.zeros(2, 2), "other": torch.zeros(3, 2, 2)}, "other must have shape"),
        ({"state": torch.full((2, 2), torch.inf), "other": torch.zeros(2, 2, 2)}, "state must be finite"),
    ):
        with pytest.raises(UsageError, match=message):
            generator.generate(steps=1, num=2, condition=given)


def test_a_codec_that_does_not_fit_the_condition_is_refused(tmp_path: Path) -> None:
    train(config(write(tmp_path / "set.npz"), images=256), tmp_path / "run")
    facts = json.loads((tmp_path / "run/run.json").read_text())
    facts["data"]["condition_codecs"]["feature"]["mean"] = [0.0]
    facts["data"]["condition_codecs"]["feature"]["std"] = [1.0]
    (tmp_path / "run/run.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match="condition feature has no codec that is fitted to 2 numbers"):
        load(tmp_path / "run")


def test_data_with_other_conditions_is_no_reference(followed: Path, tmp_path: Path) -> None:
    other = config(write(tmp_path / "set.npz"), conditions=()).data.open("train")
    with pytest.raises(UsageError, match="conditioned on feature, and the examples of 'set' have nothing"):
        evaluate(load(followed, device="cpu"), other, steps=[1], num=16)
