"""How command lines become configs: two calls of tyro, `--import`, `--dry-run`, and what starts quickly."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from anystep.cli.train import parse_train
from anystep.codecs import CODECS
from anystep.flow.condition import class_labels
from anystep.flow.penalties import PENALTIES, WEIGHTS, Squared
from anystep.recipes import find_recipe
from anystep.run.config import from_json, to_json
from anystep.run.facts import read_config
from anystep.run.plan import forward_units

from .conftest import Command
from .test_mistakes import assert_told, tree, unframed


def test_options_stand_anywhere_after_the_recipe_and_in_both_spellings() -> None:
    words = "--optimizer.lr=0.5 --seed 3 --optimizer.betas .5 .6 --resume --checkpoint.keep_last 7 --out run"
    options, config = parse_train(["digits-shortcut", *words.split()])
    assert (options.out, options.resume, options.recipe) == (Path("run"), True, "digits-shortcut")
    recipe = find_recipe("digits-shortcut")
    assert config == replace(
        recipe,
        optimizer=replace(recipe.optimizer, lr=0.5, betas=(0.5, 0.6)),
        checkpoint=replace(recipe.checkpoint, keep_last=7),
        training=replace(recipe.training, seed=3),
    )


@pytest.mark.parametrize("verb", ["train", "compare"])
def test_a_verb_that_begins_with_an_option_has_no_recipe(command: Command, verb: str) -> None:
    for words in ("--optimizer.lr 0.1 digits-shortcut", "--out run", ""):
        assert_told(command(f"{verb} {words}"), 2, f"{verb} starts with a recipe, e.g. anystep {verb} digits")
    assert command(f"{verb} --help").code == 0


def test_help_shows_the_defaults_and_the_fields_of_the_recipe_that_is_named(command: Command) -> None:
    digits, points = (command(f"train {name}-shortcut --help-all --resume").out for name in ("digits", "two_moons"))
    assert "--network.patch" in digits and "--network.patch" not in points
    assert "--resume" in digits and "--no-resume" not in digits


@pytest.mark.parametrize("words", ["train --help", "train digits-shortcut --help", "compare --help"])
def test_help_is_a_screen_that_names_the_rest(command: Command, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    verb, said = words.split(maxsplit=1)[0], command(words)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert len(lines) <= 42 and max(map(len, lines)) <= 80
    assert lines[-1].endswith(f"anystep {verb} RECIPE --help-all")
    assert "--network" not in said.out and "--network.hidden INT" in command(f"{words}-all").out


def test_help_names_the_classes_of_a_section(command: Command) -> None:
    text = unframed(command("train --help").out)
    for names in (CODECS, PENALTIES, WEIGHTS):
        *first, last = names
        assert re.search(", ".join(first) + f"(,| or) {last}", re.sub(r" \(.*?\)", "", text))


def test_a_named_class_replaces_a_section_of_another_class_only(command: Command) -> None:
    assert command("train digits-shortcut --penalty haar --penalty.levels 1 --dry-run --json haar.json").code == 0
    Path("haar.json").write_text(json.dumps(json.loads(Path("haar.json").read_text())["config"]))
    _, config = parse_train(["haar.json"])
    assert parse_train(["haar.json", "--penalty", "haar"])[1] == config
    assert parse_train(["haar.json", "--penalty", "squared"])[1] == replace(config, penalty=Squared())


def test_a_dry_run_prints_a_config_that_makes_the_same_run_and_what_it_costs(command: Command) -> None:
    words = "train digits-reflow TINY --network.heads 2 --objective.pairs 40".replace("--objective.share 0.25", "")
    words = words.replace("TINY", "--images 320 --batch 32 --network.hidden 16 --network.depth 1 --network.patch 4")
    said = command(f"{words} --dry-run")
    assert said.code == 0, said.err
    config = from_json(json.loads(said.out))
    assert config == parse_train(words.split()[1:])[1].located()
    parameters = sum(
        p.numel() for p in config.network.build((1, 8, 8), class_labels(10), config.objective.M).parameters()
    )
    assert said.err == (
        f"10 updates, 320 images, {forward_units(config):,} forward passes (1,280 of them to generate pairs), "
        f"{parameters:,} parameters; a dry run trains nothing\n"
    )
    assert tree(Path()) == {}
    Path("own.json").write_text(said.out)
    again = command("train own.json --dry-run --json cost.json")
    assert (again.out, again.err) == (said.out, said.err)
    written = json.loads(Path("cost.json").read_text())
    assert written["config"] == to_json(config) and written["cost"]["forward_units"] == forward_units(config)
    assert set(tree(Path())) == {"own.json", "cost.json"}


def test_a_dry_run_refuses_what_training_would(command: Command) -> None:
    assert_told(command("train folder-shortcut --data.path nowhere --dry-run"), 1, "nowhere: no such folder")
    assert_told(command("train two_moons-reflow --objective.guidance 2 --dry-run"), 2, "needs classes, and this data")
    assert_told(command("train digits-shortcut --network.patch 3 --dry-run"), 2, "image sides must be multiples")


def test_a_module_that_cannot_be_imported_is_one_line(command: Command) -> None:
    Path("broken_module.py").write_text("1 / 0")
    assert_told(command("sample RUNS/digits --steps 1 --import no_such_module"), 2, "No module named 'no_such_module'")
    for words in ("train digits-shortcut", "evaluate RUNS/digits --steps 1", "compare digits", "report RUNS/digits"):
        said = command(f"{words} --import broken_module")
        assert_told(said, 2, r"^anystep: cannot import broken_module, .*: ZeroDivisionError: division by zero\n$")


@pytest.mark.parametrize(("words", "code"), [([], 2), (["--help"], 0), (["--version"], 0), (["trian"], 2)])
def test_the_shortest_mistakes_load_no_heavy_library(words: list[str], code: int) -> None:
    script = (
        f"import sys; from anystep.cli.main import main; code = main({words!r}); "
        "print(code, *({'torch', 'numpy', 'tyro', 'rich'} & sys.modules.keys()))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == str(code)


def test_a_run_that_resumes_takes_its_config_from_the_run_directory(command: Command) -> None:
    assert command("train eight_gaussians-shortcut TINY --out run").code == 0
    _, config = parse_train(["eight_gaussians-shortcut", "--out", "run", "--resume", "--images", "640"])
    stored = read_config(Path("run"))
    assert config == replace(stored, training=replace(stored.training, images=640))
