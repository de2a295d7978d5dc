"""A run's config as JSON: complete, exact, and strict about what it is given."""

import json
import re
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from anystep.core.errors import UsageError
from anystep.core.random import Keys
from anystep.objectives import OBJECTIVES, Draw, FlowMatching, ImprovedShortcut, PhaseProgress, Shortcut
from anystep.recipes import find_recipe, recipe_names, with_method
from anystep.run.config import (
    CheckpointConfig,
    Config,
    EmaConfig,
    LogConfig,
    OptimizerConfig,
    TrainingConfig,
    from_json,
    to_json,
)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_comes_back_from_its_json(name: str) -> None:
    config = find_recipe(name)
    assert config.recipe == name
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


def test_values_left_out_are_the_defaults(small: Config) -> None:
    values = to_json(small)
    for section in ("optimizer", "ema", "training", "checkpoint", "preview", "log"):
        del values[section]
    assert from_json(values) == Config(small.recipe, small.data, small.network, small.objective)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("optimizer.lr", -1.0, "optimizer.lr must be greater than 0 and finite, got -1.0"),
        ("optimizer.lr", "fast", "optimizer.lr must be a number, got 'fast'"),
        ("optimizer.lr", True, "optimizer.lr must be a number, got True"),
        ("optimizer.betas", [0.9], "optimizer.betas must have 2 values, got 1"),
        ("optimizer.betas", [0.9, 1.0], r"optimizer.betas must be in \[0, 1\), got 1.0"),
        ("optimizer.momentum", 0.9, "unknown field optimizer.momentum"),
        ("optimizer.weight_decy", 0.9, "unknown field optimizer.weight_decy; did you mean weight_decay?"),
        ("training.images", 1e6, "training.images must be an integer, got 1000000.0"),
        ("training.precision", "float16", "training.precision must be one of auto, float32, bfloat16, got 'float16'"),
        ("training.accumulate", 5, r"training.accumulate must be a divisor of training.batch \(32\), got 5"),
        ("network.heads", 3, r"network.hidden must be a multiple of heads \(3\), got 16"),
        ("network.name", "unet", "network.name must be one of dit, mlp, got 'unet'"),
        ("objective.name", "shortcuts", f"objective.name must be one of {', '.join(OBJECTIVES)}, got 'shortcuts'"),
        ("objective.M", 100, "objective.M must be a power of two of at least 2, got 100"),
        ("data.heldout", 2.0, r"data.heldout must be in \[0, 1\), got 2.0"),
        ("network.step_encoding", "none", "shortcut needs network.step_encoding log2 or continuous, got none"),
        ("recipe", 3, "recipe must be text, got 3"),
        ("network", [], r"config.network must be an object, got \[\]"),
        ("optimiser", {}, "unknown field config.optimiser; did you mean optimizer?"),
        ("data", {"name": "folder"}, "data lacks path"),
    ],
)
def test_what_is_wrong_is_named_with_its_section(small: Config, path: str, value: object, message: str) -> None:
    values: dict[str, Any] = to_json(small)
    *sections, field = path.split(".")
    inner = values
    for section in sections:
        inner = inner[section]
    inner[field] = value
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        from_json(values)


@pytest.mark.parametrize("batch", [2, 8, 16, 24])
def test_a_batch_with_fewer_self_consistency_rows_than_levels_is_refused(small: Config, batch: int) -> None:
    """The remainder goes to d = 1, and with fewer rows than levels it is all that there is (METHODS 2)."""
    few = replace(small.training, batch=batch)
    with pytest.raises(ValueError, match=r"fewer than the 7 levels of M = 128: raise training\.batch to 28, lower"):
        replace(small, training=few)
    for objective in (Shortcut(M=2, share=0.5), Shortcut(share=0), Shortcut(level="random"), FlowMatching()):
        replace(small, training=few, objective=objective)


@pytest.mark.parametrize(("share", "M"), [(0.25, 128), (0.125, 128), (0.3, 32), (1.0, 4)])
def test_the_batch_that_the_message_names_trains_every_level(small: Config, share: float, M: int) -> None:
    objective = Shortcut(share=share, M=M)
    with pytest.raises(ValueError) as caught:
        replace(small, training=replace(small.training, batch=1), objective=objective)
    batch = int(re.search(r"raise training.batch to (\d+)", str(caught.value))[1])
    replace(small, training=replace(small.training, batch=batch), objective=objective)
    level = objective.draw_levels(Draw(Keys(0), 0, batch, slice(0, batch)), PhaseProgress(0, 1))
    assert set(level.tolist()) >= set(range(objective.ladder.levels))


@pytest.mark.parametrize("method", OBJECTIVES)
def test_what_is_differentiated_in_forward_mode_is_not_compiled(method: str) -> None:
    """Dynamo gives up at forward mode, silently, and in the whole process."""
    config = find_recipe(f"digits-{method}")
    refused = pytest.raises(ValueError, match="mean_flow differentiates in forward mode, which torch")
    with refused if method == "mean_flow" else nullcontext():
        replace(config, training=replace(config.training, compile=True))


def test_a_network_is_told_the_guidance_scale_where_the_method_trains_it_and_nowhere_else(small: Config) -> None:
    told = replace(small.network, guidance_input=True)  # type: ignore[type-var]
    with pytest.raises(ValueError, match=r"improved_shortcut needs network.guidance_input True, got False"):
        replace(small, objective=ImprovedShortcut())
    with pytest.raises(ValueError, match=r"shortcut needs network.guidance_input False, got True"):
        replace(small, network=told)
    made = replace(small, objective=ImprovedShortcut(), network=told)
    assert from_json(to_json(made)) == made
    for method in ("improved_shortcut", "shortcut", "flow_matching"):
        assert with_method(made, method).network.guidance_input == (method == "improved_shortcut")
    assert find_recipe("digits-improved_shortcut").network.guidance_input


@pytest.mark.parametrize("method", OBJECTIVES)
def test_a_network_without_what_the_method_needs_is_refused_and_any_other_is_taken(method: str) -> None:
    config = find_recipe(f"two_moons-{method}")
    for name, values in {
        "step_encoding": ("none", "log2", "continuous"),
        "guidance_input": (False, True),
        "prediction": ("velocity", "noise"),
    }.items():
        for value in values:
            network = replace(config.network, **{name: value})  # type: ignore[type-var]
            fits = value in config.objective.network_inputs()[name]
            with nullcontext() if fits else pytest.raises(ValueError, match=f"{method} needs network.{name} .*{value}"):
                replace(config, network=network)
    assert config.objective.network_inputs()["guidance_input"] == (method == "improved_shortcut",)


def test_a_run_from_before_networks_could_be_told_the_scale_is_read(small: Config) -> None:
    values = to_json(small)
    del values["network"]["guidance_input"], values["objective"]["interval"]
    assert from_json(values) == small


def test_missing_sections_are_named() -> None:
    with pytest.raises(ValueError, match="config lacks data, network, objective"):
        from_json({"recipe": "x"})


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        (OptimizerConfig, "lr", float("nan")),
        (OptimizerConfig, "lr", float("inf")),
        (OptimizerConfig, "weight_decay", -0.1),
        (OptimizerConfig, "eps", 0.0),
        (OptimizerConfig, "clip_norm", 0.0),
        (OptimizerConfig, "warmup", -1),
        (OptimizerConfig, "decay", 1.1),
        (EmaConfig, "target", 1.0),
        (EmaConfig, "evaluation", -0.1),
        (TrainingConfig, "images", 0),
        (TrainingConfig, "batch", 0),
        (TrainingConfig, "accumulate", 0),
        (TrainingConfig, "seed", -1),
        (TrainingConfig, "max_nonfinite", 0),
        (TrainingConfig, "precision", "half"),
        (TrainingConfig, "matmul_precision", "low"),
        (CheckpointConfig, "every", 0),
        (CheckpointConfig, "keep_last", 0),
        (CheckpointConfig, "keep_every", 0),
        (LogConfig, "every", 0),
    ],
)
def test_a_value_out_of_range_is_refused_on_construction(section: type, field: str, value: object) -> None:
    name = section.__name__.removesuffix("Config").lower()
    with pytest.raises(ValueError, match=rf"^{name}\.{field} must be .*got '?{value}"):
        section(**{field: value})


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("digits-shortcutt", "digits-shortcut"), ("digit-flow-matching", "digits-flow_matching"), ("moons", "two_moons")],
)
def test_a_misspelt_recipe_gets_its_nearest_names(wrong: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"no recipe '{wrong}'; did you mean .*{near}"):
        find_recipe(wrong)
