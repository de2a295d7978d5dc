"""Every method on colour pictures with classes and on points without: it trains, goes on exactly, and is drawn from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from scipy.special import expit, logit
from tests.training.same import assert_same, stopping

from anystep.core.errors import UsageError
from anystep.core.random import Keys
from anystep.flow.coupling import CouplingConfig
from anystep.flow.penalties import NoWeight, OwnErrorWeight
from anystep.model.load import load
from anystep.objectives import OBJECTIVES, AlphaFlow, Draw, MeanFlow, Reflow, Shortcut
from anystep.objectives.mean_flow import draw_interval
from anystep.objectives.shortcut import StepLevels
from anystep.recipes import FAMILIES, family_name, find_base, find_recipe, from_run, with_method
from anystep.run.config import Config, PreviewConfig, TrainingConfig
from anystep.run.plan import forward_units, phases, segments
from anystep.run.weights import read_trained
from anystep.training.state import State
from anystep.training.trainer import train

#: updates of flow matching at the same cost: few, and as many as a method of seven phases needs for one in each
UPDATES = {method: 40 if method == "progressive_distillation" else 12 for method in OBJECTIVES}
#: methods whose networks are told different things, or say them
SOURCES = ("flow_matching", "shortcut", "mean_flow", "improved_shortcut", "diffusion")


def small(config: Config, method: str) -> Config:
    """The recipe with a network of next to no size, on so few images that it just has its phases."""
    network = replace(config.network, hidden=16, depth=1, **({"heads": 2} if config.network.name == "dit" else {}))  # type: ignore[type-var]
    training = TrainingConfig(images=32 * UPDATES[method], batch=32, device="cpu")
    coupling = replace(config.coupling, batches=min(2, config.coupling.batches))
    config = replace(config, network=network, training=training, coupling=coupling, preview=PreviewConfig(num=0))
    return with_method(config, method)


@pytest.fixture
def pictures(tmp_path: Path) -> Config:
    """64 pictures of 32 x 32 pixels in colour, in two classes: the family that a GPU would train on real ones."""
    rng = np.random.default_rng(0)
    label = np.arange(64) % 2
    images = np.clip(rng.normal(120, 20, (64, 32, 32, 3)) + 60 * label[:, None, None, None], 0, 255).astype(np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=label)
    config = find_recipe("npz32-flow_matching")
    return replace(config, data=replace(config.data, path=str(tmp_path / "images.npz")))  # type: ignore[type-var]


@pytest.mark.parametrize("method", OBJECTIVES)
@pytest.mark.parametrize("family", ["pictures", "two_moons"])
def test_it_is_stopped_goes_on_and_is_drawn_from(family: str, method: str, pictures: Config, tmp_path: Path) -> None:
    base = pictures if family == "pictures" else find_recipe("two_moons-flow_matching")
    config = small(base, method)
    network = replace(config.network, patch=8) if family == "pictures" else config.network  # type: ignore[type-var]
    config = replace(config, network=network)
    train(config, tmp_path / "whole")
    stop, watch = stopping(config.training.steps - 2)
    train(config, tmp_path / "parts", stop=stop, watch=watch)
    train(config, tmp_path / "parts", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "parts")
    generator = load(tmp_path / "whole", device="cpu")
    one, three = (generator.generate(steps=steps, seed=0, index=range(3)) for steps in (1, 3))
    assert bool(torch.isfinite(one).all()) and bool(torch.isfinite(three).all())
    again = generator.generate(steps=3, seed=0, index=[2])  # a sample is a function of (seed, number)
    torch.testing.assert_close(again[0], three[2], atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of four updates of each kind: no step, its rung, its value, told the scale, and one that says the noise."""
    place = tmp_path_factory.mktemp("trained")
    for method in SOURCES:
        config = small(find_recipe("two_moons-flow_matching"), method)
        config = replace(config, optimizer=replace(config.optimizer, lr=0.1, warmup=0))
        train(replace(config, training=replace(config.training, images=32 * 4)), place / method)
    return place


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("method", OBJECTIVES)
def test_every_method_begins_with_any_run_as_that_runs_output(trained: Path, source: str, method: str) -> None:
    """At d = 0, W = 1, whatever each is told; only a network that says velocities cannot become one that says noise."""
    recipe = small(find_recipe("two_moons-flow_matching"), method)
    if method == "diffusion" and source != "diffusion":
        with pytest.raises(UsageError, match=rf"cannot initialise diffusion from .* \({source}\): .*predicts velocity"):
            from_run(recipe, trained / source)
        return
    config = from_run(recipe, trained / source)
    assert (config.network.step_encoding != "none") == recipe.objective.uses_step
    assert config.network.guidance_input == recipe.objective.takes_guidance
    theirs = read_trained(trained / source)
    state = State(config, theirs.facts, torch.device("cpu"))
    state.initialise_from(theirs)
    taught = load(trained / source, device="cpu").network
    g = torch.Generator().manual_seed(0)
    x, t, d = torch.randn(6, 2, generator=g), torch.rand(6, generator=g) + 0.01, torch.zeros(6)
    with torch.no_grad():
        torch.testing.assert_close(state.network(x, t, d), taught(x, t, d), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", OBJECTIVES)
@pytest.mark.parametrize("family", ["digits", "folder", "hub32", "eight_gaussians"])
def test_all_methods_of_a_family_cost_the_same(family: str, method: str) -> None:
    """To half an update of each phase; how many forward passes an update makes is counted in tests/objectives."""
    flow, config = find_recipe(f"{family}-flow_matching"), find_recipe(f"{family}-{method}")
    dearest = max(phase.cost for phase in phases(config))
    off = 3 * dearest * config.training.batch * len(segments(config))
    assert abs(forward_units(config) - forward_units(flow)) <= off
    assert forward_units(flow) == 3 * flow.training.steps * flow.training.batch


@pytest.mark.parametrize("family", FAMILIES)
def test_the_main_recipe_is_what_the_rules_make_of_the_others(family: str) -> None:
    """It is written out: its length, and what its network needs, are those that `with_method` works out."""
    main, flow = FAMILIES[family].main, find_recipe(f"{family}-flow_matching")
    assert main.recipe == f"{family}-{main.objective.name}"
    assert find_recipe(main.recipe) == main
    assert with_method(replace(flow, weight=main.weight), main.objective.name) == main
    assert with_method(flow, main.objective.name) == replace(main, weight=NoWeight())
    assert with_method(find_recipe(f"{family}-mean_flow"), main.objective).network == main.network


def test_a_recipe_as_published_has_nothing_that_its_paper_lacks() -> None:
    for family in FAMILIES:
        plain, full = (find_recipe(f"{family}-{method}_paper") for method in ("shortcut", "improved_shortcut"))
        for config, method in ((plain, "shortcut"), (full, "improved_shortcut")):
            objective, ours = config.objective, find_recipe(f"{family}-{method}").objective
            assert isinstance(objective, StepLevels) and isinstance(ours, StepLevels)
            assert config.recipe == f"{family}-{method}_paper" and family_name(config) == family
            assert (objective.name, objective.M, objective.time) == (method, ours.M, ours.time)
            assert (objective.level, objective.share_start, objective.roll_out) == ("equal", None, 1)
            assert config.weight == NoWeight()
        assert plain.objective == replace(Shortcut(), M=plain.objective.M, time=plain.objective.time)  # type: ignore[attr-defined]
        assert plain.coupling == CouplingConfig() and plain.penalty.name == "own"
        assert full == replace(with_method(find_base(family), "+twin_ema"), recipe=full.recipe)


def test_a_familys_weight_is_for_methods_with_both_kinds_of_example() -> None:
    """Another weight is for every method that it can act on."""
    weighted = [name for name in OBJECTIVES if find_recipe(f"digits-{name}").weight.name != "none"]
    assert weighted == ["shortcut", "improved_shortcut", "live_reflow"]
    base = replace(find_base("digits"), weight=OwnErrorWeight(cap=7.0))
    weighted = [name for name in OBJECTIVES if name != "imm" and with_method(base, name).weight.name != "none"]
    assert {"ict", "alpha_flow", "shortcut"} <= set(weighted) and not {"flow_matching", "diffusion"} & set(weighted)


def test_a_familys_transport_is_for_methods_that_add_no_noise() -> None:
    """New noise between steps is paired with nothing. Another coupling is for every method."""
    without = [name for name in OBJECTIVES if find_recipe(f"digits-{name}").coupling == CouplingConfig()]
    assert without == ["consistency_distillation", "consistency_training", "ict"]
    base = replace(find_base("digits"), coupling=CouplingConfig(batches=4))
    assert all(with_method(base, name).coupling == base.coupling for name in OBJECTIVES)


def test_a_method_is_given_by_name_or_as_an_objective() -> None:
    """A name has the family's settings, an objective its own; a family that nobody knows has a method's defaults."""
    config = find_recipe("digits-flow_matching")
    own = replace(config, recipe="own")
    assert with_method(config, "reflow").objective == with_method(own, Reflow(pair_steps=32, time="uniform")).objective
    assert with_method(config, Shortcut(M=8)).objective == Shortcut(M=8)
    assert with_method(own, "shortcut").objective == Shortcut()
    with pytest.raises(UsageError, match=r"no method 'shortcutt'; methods: shortcut, .* parts: \+guidance"):
        with_method(config, "shortcutt")


def long_steps(objective: MeanFlow | AlphaFlow, least: float = 0.9) -> float:
    """P(d > least): twice the chance that the earlier of two times is a, and the later beyond a + least."""
    law = stats.norm(objective.time_mean, objective.time_std)
    chance, _ = integrate.quad(lambda z: law.pdf(z) * law.sf(logit(expit(z) + least)), -40, logit(1 - least))
    return float(2 * chance)


@pytest.mark.parametrize("method", ["mean_flow", "alpha_flow"])
@pytest.mark.parametrize(
    "family", [name for name in FAMILIES if name.startswith(("digits", "emoji", "folder", "npz", "hub"))]
)
def test_one_step_is_trained_on_pixels(family: str, method: str) -> None:
    """0.9 % of the steps are longer than 0.9; 1 in 70,000 with times for latents, which points in the plane keep."""
    latents, pixels = OBJECTIVES[method](), find_recipe(f"{family}-{method}").objective
    assert isinstance(latents, MeanFlow | AlphaFlow) and isinstance(pixels, MeanFlow | AlphaFlow)
    assert long_steps(latents) == pytest.approx(1.4e-5, rel=0.05)
    assert long_steps(pixels) == pytest.approx(9.2e-3, rel=0.05)
    assert long_steps(replace(pixels, time_mean=-2.0)) == pytest.approx(long_steps(pixels))  # whatever the sign
    assert pixels.share == 0.75 and pixels.time_mean > 0  # their time is 1 - t, and its mean is below 0: near the data
    plane = find_recipe(f"two_moons-{method}").objective
    assert isinstance(plane, MeanFlow | AlphaFlow) and plane.time_mean == latents.time_mean


def test_steps_are_as_long_as_that_chance_says() -> None:
    rows, objective = 1 << 17, find_recipe("digits-mean_flow").objective
    assert isinstance(objective, MeanFlow)
    draw = Draw(Keys(0), 0, rows, slice(0, rows))
    t, d = draw_interval(draw, torch.ones(rows, dtype=torch.bool), objective.time_mean, objective.time_std)
    assert float((d > 0.9).float().mean()) == pytest.approx(long_steps(objective), rel=0.1)
    noise_levels = torch.cat([1 - t, 1 - t - d])  # the times of the paper: most are near the data, at 0
    assert float(torch.logit(noise_levels, eps=1e-9).median()) == pytest.approx(-2, abs=0.05)
