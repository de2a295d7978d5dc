"""What is said of a run when it starts, and what is kept of that in its run.json."""

import json
from dataclasses import replace
from pathlib import Path

from anystep.objectives import MeanFlow, Reflow, Shortcut
from anystep.recipes import find_recipe
from anystep.recipes.method import network_for
from anystep.training.config import Config, InitConfig
from anystep.training.notes import notes
from anystep.training.phases import forward_units
from anystep.training.trainer import train

UNFUSED = "mean_flow differentiates in forward mode: attention is computed unfused (math)"
BEGIN = InitConfig(run="flow")


def test_what_is_said_is_kept(tiny: Config, tmp_path: Path) -> None:
    config = replace(tiny, objective=MeanFlow(), network=network_for(tiny, MeanFlow()))
    said: list[str] = []
    train(config, tmp_path / "run", say=said.append)
    assert said == json.loads((tmp_path / "run" / "run.json").read_text())["notes"] == [UNFUSED]


def test_a_network_without_attention_computes_none() -> None:
    assert list(notes(find_recipe("digits-mean_flow"))) == [UNFUSED]
    assert list(notes(find_recipe("two_moons-mean_flow"))) == []
    assert list(notes(find_recipe("digits-shortcut"))) == []


def test_a_teachers_fast_time_is_told_to_methods_that_ask_for_any_step() -> None:
    config = replace(find_recipe("digits-imm"), init=BEGIN)
    assert list(notes(config)) == []  # at 10, as the recipe has it
    fast = replace(config, network=replace(config.network, time_scale=1000.0))  # type: ignore[type-var]
    assert [line.split(":")[0] for line in notes(fast)] == ["network.time_scale stays 1000, that of init.run"]
    assert list(notes(replace(fast, objective=Shortcut(M=32)))) == []


def test_a_network_that_says_the_noise_is_told_to_other_methods() -> None:
    diffusion = replace(find_recipe("digits-diffusion"), init=BEGIN)
    assert list(notes(diffusion)) == []
    network = replace(diffusion.network, step_encoding="log2")  # type: ignore[type-var]
    shortcut = replace(diffusion, objective=Shortcut(M=32), network=network)
    (clipped,) = notes(shortcut)
    (free,) = notes(replace(shortcut, optimizer=replace(shortcut.optimizer, clip_norm=None)))
    assert "the network says the noise, and its velocity divides by t" in clipped and "clip-norm" not in clipped
    assert free == clipped.replace("useful;", "useful and wants --optimizer.clip-norm 1;")


def test_pairs_say_what_they_cost() -> None:
    """1,000 pairs of 16 guided steps are 32,000 forward passes."""
    config = replace(find_recipe("digits-reflow"), objective=Reflow(pairs=1000, pair_steps=16, guidance=2))
    whole = 32_000 + 3 * config.training.steps * config.training.batch
    assert forward_units(config) == whole
    assert list(notes(config)) == [f"pairs: 1,000 x 16 steps, 32,000 network forward units of {whole:,} in all"]
