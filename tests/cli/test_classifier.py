"""`anystep data classifier`, and the scores that its files are for."""

import hashlib
import json
from pathlib import Path

import pytest

from .conftest import Command
from .test_mistakes import assert_told, tree

TRAIN = "data classifier digits --images 640 --out own/digits.safetensors"


def test_a_classifier_is_trained_by_one_command_and_scores_name_it(command: Command) -> None:
    said = command(TRAIN)
    assert said.code == 0, said.err
    facts = json.loads(Path("own/digits.json").read_text())
    assert said.out.startswith(f"accuracy {facts['accuracy']:.4f} on 359 held-out examples of digits\n")
    last = said.out.splitlines()[-1].partition("anystep ")[2]
    words = last.replace("RUN ", "RUNS/digits --num 16 ")
    scored = command(f"{words} --json scores.json")
    assert scored.code == 0, scored.err
    (row, _) = json.loads(Path("scores.json").read_text())["scores"]
    stated = row["protocol"]["metrics"]["frechet@classifier"]
    assert stated["features_version"] == hashlib.sha256(Path("own/digits.safetensors").read_bytes()).hexdigest()
    assert stated["features_accuracy"] == facts["accuracy"]


def test_it_takes_the_data_of_a_run_and_its_options(command: Command) -> None:
    said = command("data classifier RUNS/digits --data.heldout 0.5 --images 64")
    assert said.code == 0, said.err
    facts = json.loads(Path("classifier.json").read_text())
    assert (facts["data"], facts["examples"], facts["heldout"], facts["images"]) == ("digits", 898, 899, 64)


def test_a_comparison_scores_again_with_another_classifier_only(command: Command) -> None:
    small = "--images 64 --batch 32 --device cpu --network.hidden 16 --network.depth 1 --network.heads 2 --num 16"
    words = f"compare digits {small} --methods flow_matching --steps 1 --metrics frechet@classifier"
    assert command(TRAIN).code == 0
    before = tree(Path())
    assert_told(
        command(words), 2, "frechet@classifier: features 'classifier' need a trained classifier: --classifier FILE"
    )
    assert_told(command(f"{words} --classifier gone.safetensors"), 1, r"gone\.safetensors: no such file; anystep data")
    assert tree(Path()) == before  # before any training
    words += " --classifier own/digits.safetensors"
    assert "scoring" in command(words).err
    assert "scoring" not in command(words).err
    assert command(f"{TRAIN} --seed 1").code == 0
    again = command(words).err
    assert "scoring" in again and "training" not in again
    scores = json.loads(Path("runs/compare-digits/compare.json").read_text())["scores"]
    weights = hashlib.sha256(Path("own/digits.safetensors").read_bytes()).hexdigest()
    assert [row["protocol"]["metrics"]["frechet@classifier"]["features_version"] for row in scores] == [weights]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("data classifier", 2, "data classifier starts with a recipe or a run, e.g. anystep data classifier emoji"),
        ("data classifier --images 64 digits", 2, "data classifier starts with a recipe or a run"),
        ("data classifier digit", 2, "no recipe 'digit'; did you mean"),
        ("data classifier digits --out x.pt", 2, r"the file of a classifier must be NAME\.safetensors, got 'x\.pt'"),
        ("data classifier digits --images 0", 2, "--images must be at least 1, got 0"),
        ("data classifier digits --seed -1", 2, "--seed must be at least 0, got -1"),
        (
            "data classifier digits --data.heldout 0",
            1,
            "digits: no examples are held out; --data.heldout 0.1 holds out",
        ),
        (
            "data classifier two_moons",
            1,
            "two_moons: a classifier needs images, and these examples have the codec vectors",
        ),
        ("data classifier npz --data.path gone.npz", 1, "gone.npz: no such file"),
        (
            "evaluate RUNS/digits --steps 1 --metrics frechet@classifier",
            2,
            "need a trained classifier: --classifier FILE",
        ),
        (
            "evaluate RUNS/digits --steps 1 --classifier x.safetensors",
            2,
            "x.safetensors is for metrics of its features",
        ),
        (
            "evaluate RUNS/digits --steps 1 --metrics frechet@classifier --classifier x.safetensors",
            1,
            "x.safetensors: no such file; anystep data classifier writes",
        ),
    ],
)
def test_a_mistake_is_told_and_nothing_is_written(command: Command, words: str, code: int, message: str) -> None:
    assert_told(command(words), code, message)
    assert tree(Path()) == {}
