"""Runs of several phases: what each begins with, what the whole costs, and that an interruption changes nothing."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.training.same import assert_same, stopping

from anystep.core.errors import RunError, UsageError
from anystep.core.random import Keys
from anystep.flow.ladder import instantaneous_schedule
from anystep.flow.sampling import sample
from anystep.model.load import load
from anystep.objectives import (
    ConsistencyDistillation,
    Diffusion,
    FlowMatching,
    ImprovedShortcut,
    Objective,
    ProgressiveDistillation,
    Reflow,
    Shortcut,
)
from anystep.recipes.method import from_run, network_for, with_method
from anystep.run import checkpoint
from anystep.run.config import CheckpointConfig, Config, EmaConfig, InitConfig
from anystep.run.facts import DataFacts
from anystep.run.plan import forward_units, phase_at, segments, with_budget
from anystep.run.weights import read_trained
from anystep.training import pairs
from anystep.training.signals import StopRequest
from anystep.training.state import State
from anystep.training.trainer import train

from .conftest import Whole

METHODS: dict[str, Objective] = {
    "progressive": ProgressiveDistillation(M=4, teacher_share=0.5, guidance=1.5),
    "consistency": ConsistencyDistillation(M=8),
    "reflow": Reflow(pairs=70, pair_steps=2, guidance=1.5),
}


def of(small: Config, objective: Objective) -> Config:
    """24 updates: 12 of the teacher, then the student's."""
    return replace(small, objective=objective, network=network_for(small, objective))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "SHARD", 32)


@pytest.mark.parametrize("at", [11, 12, 13, 19])
@pytest.mark.parametrize("method", METHODS)
def test_stopped_in_any_phase_and_at_its_edge_a_run_is_the_same(
    small: Config, whole: Whole, tmp_path: Path, method: str, at: int
) -> None:
    config = of(small, METHODS[method])
    stop, watch = stopping(at)
    assert train(config, tmp_path / "parts", stop=stop, watch=watch).stopped is signal.SIGTERM
    train(config, tmp_path / "parts", resume=True)
    assert_same(whole(config), tmp_path / "parts")


def test_the_teacher_is_the_average_of_the_phase_before(small: Config, tmp_path: Path) -> None:
    """Progressive distillation, 12 + 6 + 6 updates: a checkpoint an update shows every hand-over."""
    config = replace(
        of(small, METHODS["progressive"]), checkpoint=CheckpointConfig(every=32, keep_last=30), ema=small.ema
    )
    train(config, tmp_path / "run")
    at = dict(checkpoint.listing(tmp_path / "run" / "checkpoints"))
    assert [part.first for part in segments(config)] == [0, 12, 18]
    for first, last in ((12, 18), (18, 24)):
        average = load_file(at[first] / "ema_evaluation.safetensors")
        for step in range(first + 1, last + 1):
            teacher = load_file(at[step] / "teacher.safetensors")
            assert all(torch.equal(average[name], tensor) for name, tensor in teacher.items())
    assert not (at[12] / "teacher.safetensors").exists()


def test_pairs_are_where_the_teacher_carries_noise_of_their_own_number(small: Config, tmp_path: Path) -> None:
    config = of(small, METHODS["reflow"])
    train(config, tmp_path / "run")
    state = State(config, DataFacts.read(tmp_path / "run"), torch.device("cpu"))
    state.restore(checkpoint.listing(tmp_path / "run" / "checkpoints")[-1][1])
    files = sorted((tmp_path / "run" / "pairs").glob("*.safetensors"))
    made = [load_file(path) for path in files]
    assert [len(part["x1"]) for part in made] == [32, 32, 6]
    x0, x1, label = (torch.cat([part[name] for part in made]) for name in ("x0", "x1", "label"))
    for i in (0, 31, 32, 69):
        noise = Keys(config.training.seed).normal(i, "pairs", (1, 8, 8))
        assert torch.equal(x0[i], noise)
    assert state.teacher is not None
    again = sample(state.teacher, x0, steps=instantaneous_schedule(2), condition=label, guidance=1.5)
    torch.testing.assert_close(x1, again, atol=1e-5, rtol=0)
    # labels come in the data's order of the epoch: 70 rows of ten classes of nearly equal size
    assert set(label.tolist()) == set(range(10))
    # they depend on the data and on how many pairs a file holds, which is said beside them
    how = json.loads((tmp_path / "run" / "pairs" / "pairs.json").read_text())
    assert (how["shard"], how["data"]) == (32, state.facts.fingerprint)


def test_pairs_that_are_there_are_not_made_again_and_damage_is_named(small: Config, tmp_path: Path) -> None:
    config = of(small, METHODS["reflow"])
    stop, watch = stopping(12)
    train(config, tmp_path / "run", stop=stop, watch=watch)
    said: list[str] = []
    stop = StopRequest()

    def say(text: str) -> None:
        said.append(text)
        if text.startswith("pairs: 32"):
            stop.signal = signal.SIGTERM

    folder = tmp_path / "run" / "pairs"
    assert train(config, tmp_path / "run", resume=True, stop=stop, say=say).stopped is signal.SIGTERM
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    assert len(before) == 1
    train(config, tmp_path / "run", resume=True)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())

    train(config, tmp_path / "whole")
    assert_same(tmp_path / "whole", tmp_path / "run")
    first = folder / "pairs-00000.safetensors"
    first.write_bytes(first.read_bytes()[:100])
    stop, watch = stopping(20)
    for path in sorted((tmp_path / "run" / "checkpoints").glob("step-0000002*")):
        shutil.rmtree(path)
    with pytest.raises(RunError, match=r"cannot read .*pairs-00000.* delete it to generate it again"):
        train(config, tmp_path / "run", resume=True)
    how = json.loads((folder / "pairs.json").read_text())
    (folder / "pairs.json").write_text(json.dumps(how | {"teacher": "another"}))
    with pytest.raises(RunError, match=r"has pairs of another teacher or other options"):
        train(config, tmp_path / "run", resume=True)


def test_the_length_of_phases_cannot_change(small: Config, tmp_path: Path) -> None:
    config = of(small, METHODS["consistency"])
    stop, watch = stopping(3)
    train(config, tmp_path / "run", stop=stop, watch=watch)
    longer = replace(config, training=replace(config.training, images=32 * 48))
    with pytest.raises(UsageError, match=r"--images cannot change with --resume: the 2 phases"):
        train(longer, tmp_path / "run", resume=True)
    short = replace(config, training=replace(config.training, images=32))
    with pytest.raises(ValueError, match=r"is 1 update, too few for the 2 phases"):
        train(short, tmp_path / "short")
    assert not (tmp_path / "short").exists()


def test_cost_is_the_sum_of_what_runs(small: Config) -> None:
    """24 updates of 32 images; an update of flow matching costs 3 an image."""
    images, first = 32 * 24, 32 * 12
    assert forward_units(of(small, FlowMatching())) == 3 * images
    assert forward_units(of(small, Shortcut(M=8, share=0.25))) == images * 3 + images // 4 * 2
    assert forward_units(of(small, METHODS["consistency"])) == 3 * first + 5 * first
    assert forward_units(of(small, METHODS["reflow"])) == 3 * images + 70 * 2 * 2
    half = 32 * 6  # progressive distillation: two passes of the teacher, four in its guided first phase
    assert forward_units(of(small, METHODS["progressive"])) == 3 * first + 7 * half + 5 * half


@pytest.mark.parametrize("method", METHODS)
def test_a_changed_method_costs_the_same_to_an_update(small: Config, method: str) -> None:
    base = of(replace(small, training=replace(small.training, images=32 * 400)), FlowMatching())
    made = with_method(base, METHODS[method])
    assert abs(forward_units(made) - forward_units(base)) <= 32 * 7
    again = with_budget(made, forward_units(made))  # phases are whole updates: to one more or less
    assert abs(again.training.images - made.training.images) <= 32


def test_pairs_take_a_quarter_of_the_budget_at_most(small: Config) -> None:
    base = of(small, FlowMatching())
    objective = with_method(base, Reflow(pairs=50_000, pair_steps=8)).objective
    assert isinstance(objective, Reflow) and objective.pairs == 3 * 32 * 24 // 4 // 8


@pytest.mark.parametrize("teacher", [FlowMatching(), Diffusion()])
def test_a_shortcut_model_begins_as_its_teacher(small: Config, tmp_path: Path, teacher: Objective) -> None:
    """At step 0 its output at d = 0 equals the teacher's bit for bit, at every other d as well; then it learns d."""
    config = of(small, teacher)
    train(config, tmp_path / "teacher")
    tuned = replace(
        config,
        objective=small.objective,
        network=replace(config.network, step_encoding="log2"),  # type: ignore[type-var]
        init=InitConfig(run=str(tmp_path / "teacher")),
    )
    facts = DataFacts.read(tmp_path / "teacher")
    student = State(tuned, facts, torch.device("cpu"))
    student.initialise_from(read_trained(tmp_path / "teacher"))
    taught = config.network.build(facts.shape, facts.conditions)
    taught.load_state_dict(read_trained(tmp_path / "teacher").weights)
    g = torch.Generator().manual_seed(0)
    x, t, label = torch.randn(6, 1, 8, 8, generator=g), torch.rand(6, generator=g), torch.arange(6)
    expected = taught(x, t, torch.zeros(6), label)
    for network in (student.network, student.averages["evaluation"].network, student.averages["target"].network):
        for d in (0.0, 1 / 64, 1.0):
            assert torch.equal(network(x, t, torch.full((6,), d), label), expected)
    train(tuned, tmp_path / "tuned")
    student.restore(checkpoint.listing(tmp_path / "tuned" / "checkpoints")[-1][1])
    with torch.no_grad():
        one, none = (student.network(x, t, d, label) for d in (torch.ones(6), torch.zeros(6)))
    assert float((one - none).abs().max()) > 1e-6


@pytest.mark.parametrize(("encoding", "M"), [("log2", 128), ("log2", 8), ("continuous", 128), ("none", 128)], ids=str)
def test_a_step_input_of_another_meaning_becomes_the_constant_it_was_at_no_step(
    small: Config, tmp_path: Path, encoding: str, M: int
) -> None:
    """A run that was told log2 of M = 128: at d = 0 the output is the same, and of ours no other d makes it another."""
    fast = replace(small, optimizer=replace(small.optimizer, lr=0.02, warmup=0), ema=EmaConfig(evaluation=0.5))
    train(fast, tmp_path / "run")
    objective = FlowMatching() if encoding == "none" else Shortcut(M=M)
    network = replace(small.network, step_encoding=encoding)  # type: ignore[type-var]
    init = InitConfig(run=str(tmp_path / "run"))
    facts, trained = DataFacts.read(tmp_path / "run"), read_trained(tmp_path / "run")
    before = torch.get_rng_state()
    student = State(replace(small, objective=objective, network=network, init=init), facts, torch.device("cpu"))
    student.initialise_from(trained)
    assert torch.equal(torch.get_rng_state(), before)
    taught = small.network.build(facts.shape, facts.conditions)
    taught.load_state_dict(trained.weights)
    g = torch.Generator().manual_seed(0)
    x, t, label = torch.randn(6, 1, 8, 8, generator=g), torch.rand(6, generator=g), torch.arange(6)
    with torch.no_grad():
        told = {d: taught(x, t, torch.full((6,), d), label) for d in (0.0, 0.125, 1.0)}
        assert float((told[1.0] - told[0.0]).abs().max()) > 1e-4  # it did learn the step
        for d, theirs in told.items():
            expected = theirs if (encoding, M) == ("log2", 128) else told[0.0]
            ours = student.network(x, t, torch.full((6,), d), label)
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_bfloat16_goes_through_phases_and_pairs(small: Config, tmp_path: Path) -> None:
    """Pairs are made under the run's autocast and kept in float32; an interruption changes nothing here either."""
    config = of(replace(small, training=replace(small.training, precision="bfloat16")), METHODS["reflow"])
    train(config, tmp_path / "whole")
    stop, watch = stopping(14)
    train(config, tmp_path / "parts", stop=stop, watch=watch)
    train(config, tmp_path / "parts", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "parts")
    state = State(config, DataFacts.read(tmp_path / "whole"), torch.device("cpu"))
    state.restore(checkpoint.listing(tmp_path / "whole" / "checkpoints")[-1][1])
    made = load_file(tmp_path / "whole" / "pairs" / "pairs-00000.safetensors")
    assert state.teacher is not None and made["x1"].dtype == torch.float32
    asked = {"steps": instantaneous_schedule(2), "condition": made["label"], "guidance": 1.5}
    with torch.no_grad(), state.autocast():
        rounded = sample(state.teacher, made["x0"], **asked)
    torch.testing.assert_close(made["x1"], rounded.float(), atol=1e-5, rtol=0)
    with torch.no_grad():
        assert not torch.equal(made["x1"], sample(state.teacher, made["x0"], **asked))


def test_a_checkpoint_of_a_phase_before_the_last_says_so(small: Config, tmp_path: Path) -> None:
    """Progressive distillation, 12 + 6 + 6 updates; at a phase's end the weights are still that phase's."""
    config = replace(of(small, METHODS["progressive"]), checkpoint=CheckpointConfig(every=32, keep_last=30))
    train(config, tmp_path / "run")
    names = [part.phase.name for part in segments(config)]
    for step, number in ((1, 0), (12, 0), (13, 1), (18, 1), (19, 2), (24, 2)):
        assert phase_at(config, step) == number
        drawn = load(tmp_path / "run", device="cpu", step=step)
        if number == 2:
            assert drawn.caution is None and drawn.source == f"run, step {step}"
        else:
            place = f"phase {names[number]} ({number + 1} of 3)"
            assert drawn.source == f"run, step {step}, {place}"
            assert drawn.caution == f"this checkpoint is of {place}: no progressive_distillation model yet"


@pytest.mark.parametrize("teacher", [FlowMatching(), Shortcut()])
def test_an_improved_shortcut_model_begins_as_its_teacher_at_any_scale(
    small: Config, tmp_path: Path, teacher: Objective
) -> None:
    """Inputs that the teacher lacked, W alone or the step too, contribute exactly nothing; then W is learned."""
    train(of(small, teacher), tmp_path / "teacher")
    objective = ImprovedShortcut(M=teacher.M, guidance_max=2.0)
    tuned = from_run(of(small, objective), tmp_path / "teacher")
    assert tuned.network.guidance_input and tuned.network.step_encoding == "log2"
    facts = DataFacts.read(tmp_path / "teacher")
    student = State(tuned, facts, torch.device("cpu"))
    student.initialise_from(read_trained(tmp_path / "teacher"))
    taught = of(small, teacher).network.build(facts.shape, facts.conditions, teacher.M)
    taught.load_state_dict(read_trained(tmp_path / "teacher").weights)
    g = torch.Generator().manual_seed(0)
    x, t, label = torch.randn(6, 1, 8, 8, generator=g), torch.rand(6, generator=g), torch.arange(6)
    d = torch.tensor([0.0, 1 / 64, 1.0, 0.0, 0.5, 1.0])
    for W in (1.0, 1.5, 4.0):
        answer = student.averages["target"].network(x, t, d, label, torch.full((6,), W))
        assert torch.equal(answer, taught(x, t, d, label))
    train(tuned, tmp_path / "tuned")
    student.restore(checkpoint.listing(tmp_path / "tuned" / "checkpoints")[-1][1])
    with torch.no_grad():
        one, two = (student.network(x, t, d, label, torch.full((6,), W)) for W in (1.0, 2.0))
    assert float((one - two).abs().max()) > 1e-6


def test_a_method_that_takes_no_scale_begins_with_a_network_that_did_as_that_network_at_no_guidance(
    small: Config, tmp_path: Path
) -> None:
    """What the embedding of W learned to say at W = 1 becomes a constant; the step, which both are told, stays."""
    fast = replace(small, optimizer=replace(small.optimizer, lr=0.02, warmup=0), ema=EmaConfig(evaluation=0.5))
    told = of(fast, ImprovedShortcut(M=128, guidance_max=2.0))
    train(told, tmp_path / "told")
    plain = from_run(small, tmp_path / "told")
    assert isinstance(plain.objective, Shortcut) and not plain.network.guidance_input
    facts, trained = DataFacts.read(tmp_path / "told"), read_trained(tmp_path / "told")
    student = State(plain, facts, torch.device("cpu"))
    student.initialise_from(trained)
    taught = told.network.build(facts.shape, facts.conditions)
    taught.load_state_dict(trained.weights)
    g = torch.Generator().manual_seed(0)
    x, t, label = torch.randn(6, 1, 8, 8, generator=g), torch.rand(6, generator=g), torch.arange(6)
    d = torch.tensor([0.0, 1 / 64, 1.0, 0.0, 0.5, 1.0])
    with torch.no_grad():
        at_one, at_two = (taught(x, t, d, label, torch.full((6,), W)) for W in (1.0, 2.0))
        assert float((at_two - at_one).abs().max()) > 1e-4  # it did learn the scale
        assert float(taught.condition.guidance(torch.zeros(1)).abs().max()) > 1e-4  # and W = 1 is not 0
        torch.testing.assert_close(student.network(x, t, d, label), at_one, rtol=0, atol=1e-6)


def test_a_trained_run_takes_the_place_of_the_teachers_phase(small: Config, tmp_path: Path) -> None:
    flow = of(small, FlowMatching())
    train(flow, tmp_path / "flow")
    config = replace(of(small, METHODS["consistency"]), init=InitConfig(run=str(tmp_path / "flow")))
    assert [part.phase.name for part in segments(config)] == ["consistency"]
    train(config, tmp_path / "student")
    last = checkpoint.listing(tmp_path / "student" / "checkpoints")[-1][1]
    teacher = load_file(last / "teacher.safetensors")
    average = load_file(checkpoint.listing(tmp_path / "flow" / "checkpoints")[-1][1] / "ema_evaluation.safetensors")
    assert all(torch.equal(average[name], tensor) for name, tensor in teacher.items())


def test_a_network_that_does_not_fit_is_refused(small: Config, tmp_path: Path) -> None:
    train(of(small, FlowMatching()), tmp_path / "flow")
    other = replace(small.network, hidden=32)  # type: ignore[type-var]
    config = replace(small, network=other, init=InitConfig(run=str(tmp_path / "flow")))
    with pytest.raises(RunError, match=r"init.run .*flow has network.hidden 16, and this run 32: take the network"):
        train(config, tmp_path / "tuned")
    with pytest.raises(RunError, match=r"nowhere is not a run directory"):
        train(replace(small, init=InitConfig(run=str(tmp_path / "nowhere"))), tmp_path / "tuned")
    assert not (tmp_path / "tuned").exists()
