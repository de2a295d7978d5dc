"""iSM's parts in `anystep compare`: each has those before it, costs the same, and is scored at the W that is asked."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from anystep.cli.compare import parse_compare
from anystep.comparison.compare import Choices, plan_trials
from anystep.core.errors import UsageError
from anystep.evaluation.evaluate import evaluate
from anystep.evaluation.reference import open_heldout
from anystep.flow.penalties import Haar
from anystep.model.load import load
from anystep.objectives import ImprovedShortcut
from anystep.recipes import PARTS, find_recipe, with_method
from anystep.recipes.ablation import with_parts
from anystep.run.config import Config
from anystep.run.directory import options
from anystep.run.facts import read_config
from anystep.run.plan import forward_units

from .conftest import Command
from .test_mistakes import tree

SMALL = "--images 640 --batch 64 --device cpu --preview.num 0 --network.hidden 16 --network.depth 1 --network.heads 2"
DIGITS = f"compare digits {SMALL} --optimizer.warmup 0 --methods shortcut,+guidance,+twin_ema --steps 1 2 --num 32"


def parts(*words: str) -> dict[str, Config]:
    """Return every part's run, and that of the shortcut model as published."""
    base = parse_compare(["digits", *words])[1]
    trials = plan_trials(base, Path("out"), Choices(methods=["shortcut_paper", *PARTS]))
    return {trial.method: trial.config for trial in trials}


def test_each_part_adds_itself_to_those_before() -> None:
    made = parts()
    changed = {
        "+interval": {"objective.interval": 0.3},
        "+wavelet": {"penalty.name": "haar"} | {f"penalty.{f.name}": f.default for f in fields(Haar)},
        "+ot": {"coupling.batches": 8},  # of 128 rows: 1,024 in all
        "+twin_ema": {"ema.target": 0.95, "ema.evaluation": 0.9999},
    }
    assert list(made) == ["shortcut_paper", "+guidance", *changed] == ["shortcut_paper", *PARTS]
    for before, (name, new) in zip(["+guidance", *changed], changed.items(), strict=False):
        old, found = options(made[before]), options(made[name])
        assert {field: value for field, value in found.items() if value != old.get(field, ...)} == new
    assert options(made["+guidance"])["objective.interval"] == 0
    bare, guided = options(made["shortcut_paper"]), options(made["+guidance"])
    sections = {name.partition(".")[0] for name, value in guided.items() if value != bare.get(name)}
    assert sections == {"recipe", "network", "objective", "training"}  # the input W, and fewer images at the same cost
    for config in made.values():
        assert forward_units(config) == pytest.approx(3 * 280_000, rel=2e-3)


def test_what_is_asked_for_all_methods_stays() -> None:
    words = "--penalty haar --penalty.norm l1 --coupling.batches 2 --ema.target 0.99 --ema.evaluation 0.99"
    base = parse_compare(["digits", *words.split()])[1]
    for name in ("+guidance", "+wavelet", "+ot"):
        made = with_method(base, name)
        assert (made.penalty, made.coupling, made.ema) == (base.penalty, base.coupling, base.ema)
    assert with_method(base, "+twin_ema").ema.warmup == base.ema.warmup
    assert with_method(base, "+twin_ema").ema.target == 0.95


@pytest.mark.parametrize(
    ("words", "names", "same"),
    [
        ("--penalty haar", "+guidance +interval +wavelet", "+wavelet is here the same run as +interval"),
        ("--ema.target 0.95 --ema.evaluation 0.9999", "+ot +twin_ema", r"\+twin_ema is here the same run as \+ot"),
        (
            "",
            "improved_shortcut_paper +twin_ema",
            r"\+twin_ema is here the same run as improved_shortcut_paper: .*--without \+twin_ema",
        ),
    ],
)
def test_a_part_that_adds_nothing_is_refused(words: str, names: str, same: str) -> None:
    base = parse_compare(["digits", *words.split()])[1]
    with pytest.raises(UsageError, match=same if "\\" in same else re.escape(same)):
        plan_trials(base, Path("out"), Choices(methods=names.split()))


def test_a_run_of_improved_shortcut_has_its_own_options_in_every_part() -> None:
    config = find_recipe("digits-improved_shortcut")
    config = replace(config, objective=ImprovedShortcut(M=16, share=0.25, interval=0.5))
    for name in PARTS:
        mine = with_method(config, name).objective
        assert mine == replace(config.objective, interval=0.0 if name == "+guidance" else 0.5)  # type: ignore[type-var]
    with pytest.raises(ValueError, match=r"^\+ot is a part of improved_shortcut, and this is a run of shortcut"):
        with_parts(find_recipe("digits-shortcut"), "+ot")


def found() -> dict[str, Any]:
    written: dict[str, Any] = json.loads(Path("runs/compare-digits/compare.json").read_text())
    return written


@pytest.mark.usefixtures("undrawn")
def test_the_scale_is_that_of_the_networks_that_are_told_it(command: Command) -> None:
    said = command(f"{DIGITS} --guidance 1.5")
    assert said.code == 0 and "iSM, part by part" in said.out
    assert "guidance 1.5 where it is an input" in said.out
    scores = found()["scores"]
    assert [(row["method"], row["steps"], row["guidance"]) for row in scores] == [
        *(("shortcut", n, 1) for n in (1, 2)),
        *((name, n, 1.5) for name in ("+guidance", "+twin_ema") for n in (1, 2)),
    ]
    assert all(row["network_calls"] == row["steps"] for row in scores)
    run = Path("runs/compare-digits/+twin_ema-seed0")
    data = read_config(run).data
    again = evaluate(
        load(run, device="cpu"), data.open("train"), steps=[2], num=32, guidance=1.5, heldout=open_heldout(data)
    )
    (row,) = (row for row in scores if (row["method"], row["steps"]) == ("+twin_ema", 2))
    assert again[0]["frechet"] == row["frechet"] and again[0]["accuracy"] == row["accuracy"]


@pytest.mark.usefixtures("undrawn")
def test_another_scale_is_scored_and_nothing_is_trained(command: Command) -> None:
    command(f"{DIGITS} --guidance 1.5")
    runs = tree(Path("runs"))
    assert "scoring" not in command(f"{DIGITS} --guidance 1.5").err and tree(Path("runs")) == runs
    before = found()["scores"]
    said = command(DIGITS)
    assert "training" not in said.err and said.err.count("scoring") == 2  # not the shortcut model
    assert [row["guidance"] for row in found()["scores"]] == [1] * 6
    command(f"{DIGITS} --guidance 1.5")
    assert found()["scores"] == before
    only = DIGITS.replace("shortcut,+guidance,", "")
    said = command(f"{only} --guidance 2")
    assert "4 earlier scores of runs/compare-digits/compare.json are dropped: runs" in said.err
    told = [(row["method"], row["guidance"]) for row in found()["scores"]]
    assert told == [("+twin_ema", 2)] * 2 + [("shortcut", 1)] * 2
    assert {(row["method"], row["guidance"]) for row in found()["summary"]} == {("+twin_ema", 2), ("shortcut", None)}
