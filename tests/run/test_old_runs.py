"""Runs written by anystep 0.1.0 load, sample, evaluate and resume; `fixtures/runs-0.1.0` says what they gave then."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from anystep import evaluate, load, train
from anystep.evaluation.reference import open_heldout
from anystep.run.facts import read_config

OLD = Path(__file__).parents[1] / "fixtures" / "runs-0.1.0"
#: the processor that wrote them may have rounded products differently
TOLERANCE: dict[str, Any] = {"rtol": 2e-3, "atol": 2e-3}


def expected(name: str) -> dict[str, Any]:
    return dict(json.loads((OLD / "expected.json").read_text())[name])


def check_as_it_was(run: Path, then: dict[str, Any]) -> None:
    """Samples in network units and decoded, and scores, as 0.1.0 had them."""
    generator = load(run, device="cpu")
    for steps, values in then["samples"].items():
        now = generator.generate(steps=int(steps), seed=2, index=range(3)).flatten()[:8]
        torch.testing.assert_close(now, torch.tensor(values), **TOLERANCE)
    decoded = generator.decode(generator.generate(steps=2, seed=2, index=range(2)))
    near = torch.as_tensor(decoded).flatten()[:8].double() - torch.tensor(then["decoded"]).double()
    assert float(near.abs().max()) <= 1  # a grey level
    reference = read_config(run).data.open("train")
    rows = evaluate(generator, reference, steps=[1, 3], num=48, metrics=["frechet", "precision"])
    assert [row["frechet"] for row in rows] == pytest.approx(then["frechet"], rel=1e-2)


#: all metrics of 48 samples in one step, by the last commit before metrics had a registry
SCORES = {
    "digits": {"frechet": 60.5962, "precision": 0, "recall": 0.10417, "energy": 3.60067, "accuracy": 0.08333,
               "accuracy_real": 0.98401},
    "moons": {"frechet": 0.530524, "precision": 0.72917, "recall": 1, "energy": 0.137910, "accuracy": 0.4375,
              "accuracy_real": 0.99667},
}  # fmt: skip


@pytest.mark.parametrize("name", ["digits", "moons"])
def test_every_metric_is_as_it_was(name: str) -> None:
    source = read_config(OLD / name).data
    metrics = [metric for metric in SCORES[name] if metric != "accuracy_real"]
    (row,) = evaluate(
        load(OLD / name, device="cpu"),
        source.open("train"),
        steps=[1],
        num=48,
        metrics=metrics,
        heldout=open_heldout(source),
    )
    assert {metric: row[metric] for metric in SCORES[name]} == pytest.approx(SCORES[name], rel=1e-2, abs=0.03)


@pytest.mark.parametrize("name", ["digits", "moons"])
def test_loads_samples_and_evaluates(name: str) -> None:
    check_as_it_was(OLD / name, expected(name)["stopped"])


@pytest.mark.parametrize("name", ["digits", "moons"])
def test_resumes_with_its_own_noise(name: str, tmp_path: Path) -> None:
    run = tmp_path / name
    shutil.copytree(OLD / name, run)
    then = expected(name)
    train(read_config(run), run, resume=True)
    losses = [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(then["losses"]), **TOLERANCE)
    check_as_it_was(run, then["finished"])
