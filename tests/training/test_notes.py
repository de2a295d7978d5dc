"""What is said of a run when it starts, and what is kept of that in its run.json."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from anystep.flow.coupling import CouplingConfig
from anystep.objectives import MeanFlow, Reflow, Shortcut
from anystep.recipes import find_recipe, recipe_names
from anystep.recipes.method import network_for
from anystep.run.config import Config, InitConfig
from anystep.run.plan import forward_units
from anystep.training.notes import notes
from anystep.training.trainer import train

UNFUSED = "mean_flow differentiates in forward mode: attention is computed unfused (math)"
BEGIN = InitConfig(run="flow")


def said_of(config: Config) -> list[str]:
    """What is said of a run on data with the ten classes of digits."""
    return list(notes(config, num_classes=10))


def test_what_is_said_is_kept(tiny: Config, tmp_path: Path) -> None:
    config = replace(tiny, objective=MeanFlow(), network=network_for(tiny, MeanFlow()))
    said: list[str] = []
    train(config, tmp_path / "run", say=said.append)
    assert said == json.loads((tmp_path / "run" / "run.json").read_text())["notes"] == [UNFUSED]


def test_a_network_without_attention_computes_none() -> None:
    assert said_of(find_recipe("digits-mean_flow")) == [UNFUSED]
    assert said_of(find_recipe("two_moons-mean_flow")) == []
    assert said_of(find_recipe("digits-shortcut")) == []


def test_a_teachers_fast_time_is_told_to_methods_that_ask_for_any_step() -> None:
    config = replace(find_recipe("digits-imm"), init=BEGIN)
    assert said_of(config) == []  # at 10, as the recipe has it
    fast = replace(config, network=replace(config.network, time_scale=1000.0))  # type: ignore[type-var]
    assert [line.split(":")[0] for line in said_of(fast)] == ["network.time_scale stays 1000, that of init.run"]
    assert said_of(replace(fast, objective=Shortcut(M=32))) == []


def test_a_network_that_says_the_noise_is_told_to_other_methods() -> None:
    diffusion = replace(find_recipe("digits-diffusion"), init=BEGIN)
    assert said_of(diffusion) == []
    network = replace(diffusion.network, step_encoding="log2")  # type: ignore[type-var]
    shortcut = replace(diffusion, objective=Shortcut(M=32), network=network)
    (clipped,) = said_of(shortcut)
    (free,) = said_of(replace(shortcut, optimizer=replace(shortcut.optimizer, clip_norm=None)))
    assert "the network predicts noise, and its velocity is divided by t" in clipped and "clip-norm" not in clipped
    assert free == clipped.replace("useful;", "useful and wants --optimizer.clip-norm 1;")


def test_pairs_say_what_they_cost() -> None:
    """1,000 pairs of 16 guided steps are 32,000 forward passes."""
    config = replace(find_recipe("digits-reflow"), objective=Reflow(pairs=1000, pair_steps=16, guidance=2))
    whole = 32_000 + 3 * config.training.steps * config.training.batch
    assert forward_units(config) == whole
    told = f"pairs: 1,000 x 16 steps, 32,000 network forward passes of {whole:,} in all"
    assert said_of(replace(config, coupling=CouplingConfig())) == [told]


def in_batches(config: Config, batch: int) -> Config:
    return replace(config, training=replace(config.training, batch=batch))


def test_a_decay_that_asks_for_more_than_the_run_is_told_what_the_warm_up_reaches() -> None:
    config = in_batches(find_recipe("digits-improved_shortcut"), 256)  # 941 updates
    long = replace(config, ema=replace(config.ema, evaluation=0.9999))
    reached = "is not reached: the warm-up ends at 0.9905 (ema.warmup)"
    assert said_of(long) == [f"ema.evaluation 0.9999 {reached}"]
    assert said_of(replace(config, ema=replace(config.ema, target=0.999))) == [f"ema.target 0.999 {reached}"]
    assert said_of(replace(long, ema=replace(long.ema, warmup=False))) == []
    assert said_of(replace(long, training=replace(long.training, images=256 * 10_100))) == []
    flow = find_recipe("digits-flow_matching")  # no targets of its own
    assert said_of(replace(flow, ema=replace(flow.ema, target=0.9999))) == []


def test_the_decay_that_is_reached_is_that_of_the_last_phase() -> None:
    config = in_batches(find_recipe("digits-progressive_distillation"), 256)  # its last has 82 updates
    long = replace(config, ema=replace(config.ema, evaluation=0.9999))
    assert said_of(long) == ["ema.evaluation 0.9999 is not reached: the warm-up ends at 0.9011 (ema.warmup)"]


@pytest.mark.parametrize(
    "name",
    [name for name in recipe_names() if name.startswith(("digits", "two_moons", "folder32")) and "improved" not in name]
    + [f"{family}-improved_shortcut" for family in ("digits", "two_moons", "folder32")],
)
def test_recipes_and_trials_do_not_nag(name: str) -> None:
    """Recipes ask for decays that the warm-up does not quite reach, and a few updates are no run."""
    config = find_recipe(name)
    trial = replace(config, training=replace(config.training, images=90 * config.training.batch))
    assert not [line for line in (*said_of(config), *said_of(trial)) if line.startswith("ema.")]
