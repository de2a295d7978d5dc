"""Power averages that a run keeps, and widths that are chosen after training."""

import json
import re
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.training.same import assert_same, assert_same_tensors, stopping
from torch import Tensor

from anystep.core.errors import RunError, UsageError
from anystep.model.load import load
from anystep.objectives import ProgressiveDistillation, Reflow
from anystep.recipes import find_recipe
from anystep.recipes.method import network_for
from anystep.run import checkpoint
from anystep.run import weights as profiles
from anystep.run.averages import Profile, mixture
from anystep.run.config import CheckpointConfig, Config, EmaConfig, LogConfig, PreviewConfig
from anystep.run.weights import read_trained
from anystep.training import trainer, update
from anystep.training.state import State
from anystep.training.trainer import train

from .conftest import Whole

PAPER = (0.05, 0.1)
OTHERS = (0.07, 0.15, 0.2)
UPDATES = 320


def with_profiles(config: Config, every: int | None = None, widths: Sequence[float] = PAPER) -> Config:
    """``every``: updates between copies."""
    images = None if every is None else every * config.training.batch
    return replace(config, ema=replace(config.ema, profiles=tuple(widths), profile_every=images))


def flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors.values()])


def copies(run: Path) -> list[int]:
    return [step for step, _ in checkpoint.listing(run / "profiles")]


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an MLP on eight Gaussians, with five averages and a copy every 8 updates."""
    config = find_recipe("eight_gaussians-shortcut")
    config = replace(
        config,
        network=replace(config.network, hidden=32),  # type: ignore[type-var, call-arg]
        optimizer=replace(config.optimizer, warmup=0),
        ema=EmaConfig(target=0.97, evaluation=0.99, profiles=(*PAPER, *OTHERS), profile_every=64 * 8),
        training=replace(config.training, images=64 * UPDATES, batch=64, seed=0, device="cpu"),
        checkpoint=CheckpointConfig(every=64 * 100, keep_last=9),
        log=LogConfig(every=64 * 100),
        preview=PreviewConfig(num=0),
    )
    run = tmp_path_factory.mktemp("profiles") / "points"
    train(config, run)
    return run


def keeping(run: Path, place: Path, widths: Sequence[float], every: int) -> Path:
    """The run as if it had kept these widths alone, at multiples of ``every`` updates."""
    values = json.loads((run / "config.json").read_text())
    values["ema"]["profiles"] = list(widths)
    place.mkdir()
    (place / "config.json").write_text(json.dumps(values))
    (place / "run.json").symlink_to(run / "run.json")
    (place / "checkpoints").symlink_to(run / "checkpoints")
    (place / "profiles").mkdir()
    for step, path in checkpoint.listing(run / "profiles"):
        if step % every == 0:
            (place / "profiles" / path.name).symlink_to(path)
    return place


def tracked(run: Path, step: int, width: float) -> dict[str, Tensor]:
    return load_file(checkpoint.directory(run / "checkpoints", step) / f"ema_power_{width}.safetensors")


@pytest.mark.parametrize(("every", "bound"), [(8, 1e-4), (16, 5e-4), (32, 1e-3)])
def test_a_width_that_was_not_kept_is_the_average_that_would_have_been(
    points: Path, tmp_path: Path, every: int, bound: float
) -> None:
    """Relative to the parameters' norm, the worst of 0.07, 0.15 and 0.2 from copies of 0.05 and 0.1."""
    run = keeping(points, tmp_path / "run", PAPER, every)
    errors = []
    for width in OTHERS:
        made, exact = flat(read_trained(run, width).weights), flat(tracked(points, UPDATES, width))
        errors.append(float((made - exact).norm() / exact.norm()))
    assert max(errors) < bound, errors


def test_a_width_of_an_earlier_checkpoint_is_made_of_what_was_there(points: Path, tmp_path: Path) -> None:
    """Step 100 is no multiple of 8: the checkpoint's own averages count too. What came later does not."""
    run = keeping(points, tmp_path / "run", PAPER, 8)
    before = read_trained(run, 0.07, 100).weights
    error = flat(before) - flat(exact := tracked(points, 100, 0.07))
    assert float(error.norm() / flat(exact).norm()) < 1e-4
    for step, path in checkpoint.listing(run / "profiles"):
        if step > 100:
            path.unlink()
    after = read_trained(run, 0.07, 100).weights
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize("width", [*PAPER, *OTHERS])
def test_a_width_that_was_kept_is_itself(points: Path, width: float) -> None:
    for step in (100, 300, UPDATES):
        made, exact = read_trained(points, width, step), tracked(points, step, width)
        assert made.caution is None
        assert made.weights.keys() == exact.keys()
        assert all(torch.equal(tensor, exact[name]) for name, tensor in made.weights.items())


def test_a_generator_says_which_average_it_is(points: Path, tmp_path: Path) -> None:
    generator = load(points, weights=0.1, device="cpu")
    assert (generator.ema, generator.caution) == ("power 0.1", None)
    assert load(points, device="cpu").ema == "0.99" and load(points, weights="raw", device="cpu").ema == "none"
    state = dict(generator.network.state_dict())  # type: ignore[attr-defined]
    assert all(torch.equal(state[name], tensor) for name, tensor in tracked(points, UPDATES, 0.1).items())
    few = keeping(points, tmp_path / "few", PAPER, 80)
    approximate = (
        "width {} can only be approximated from the stored averages (its profile is {} off): "
        "choose one nearer to 0.05 or 0.1, or train with {} among --ema.profiles"
    )
    assert load(few, weights=0.15, device="cpu").caution is not None
    told = load(few, weights=0.2, device="cpu").caution
    assert told == approximate.format(0.2, "22%", 0.2)
    with pytest.raises(RunError) as refused:
        load(few, weights=0.01)
    off = re.search(r"\d+%", str(refused.value))
    assert off is not None and str(refused.value) == approximate.format(0.01, off[0], 0.01)


def test_what_cannot_be_chosen_is_refused(tiny: Config, points: Path, tmp_path: Path) -> None:
    train(tiny, tmp_path / "run")
    with pytest.raises(RunError, match=r"run has no power averages to combine: train it with --ema.profiles 0.05 0.1"):
        load(tmp_path / "run", weights=0.1)
    for wrong in (0.0, -0.1, 1e-160, 0.3, float("nan")):
        with pytest.raises(ValueError, match=r"^weights must be at least 0.001 and at most 0.2886, a plain mean, got"):
            load(points, weights=wrong)
    with pytest.raises(ValueError, match=r"^weights must be one of ema, raw, got 'emma'"):
        load(points, weights="emma")  # type: ignore[arg-type]


def test_a_very_narrow_width_says_that_rounding_counts(
    points: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A difference of large terms, of copies that are float32, however near its profile is."""
    run = keeping(points, tmp_path / "run", PAPER, 8)
    stored = [Profile(n, s) for n in range(8, UPDATES + 1, 8) for s in PAPER]
    gain = mixture(stored, Profile(UPDATES, 0.02)).gain
    assert load(run, weights=0.02, device="cpu").caution is None and 20 < gain < 100
    rounding = rf"rounding counts {gain:.0f}-fold\): choose one nearer to 0.05 or 0.1, or train with 0.02 among"
    monkeypatch.setattr(profiles, "WARN_GAIN", 20.0)
    assert re.search(rounding, load(run, weights=0.02, device="cpu").caution or "")
    monkeypatch.setattr(profiles, "MAX_GAIN", 20.0)
    with pytest.raises(RunError, match=rf"^width 0.02 can only be approximated .*{rounding}"):
        load(run, weights=0.02)


def test_a_checkpoint_that_is_damaged_is_not_to_be_deleted(points: Path, tmp_path: Path) -> None:
    """It holds the network and the optimizer too."""
    run = tmp_path / "run"
    shutil.copytree(points, run)
    last = checkpoint.directory(run / "checkpoints", UPDATES)
    broken = last / "ema_power_0.05.safetensors"
    broken.write_bytes(broken.read_bytes()[:300])
    for width in (0.05, 0.06):
        with pytest.raises(
            RunError, match=r"cannot read \S+320/ema_power_0.05.safetensors: .*; choose another checkpoint with"
        ) as told:
            load(run, weights=width)
        assert "delete" not in str(told.value)
    load(run, device="cpu")
    (last / "state.json").write_text("{")
    with pytest.raises(RunError, match=r"cannot read \S+320/state.json: .*; choose another checkpoint with") as told:
        load(run, weights=0.05)
    assert "delete" not in str(told.value)


def test_a_copy_that_does_not_fit_is_named_and_a_kept_width_reads_none(points: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(points, run)
    copy = run / "profiles" / "step-00000312"
    state = copy / "state.json"
    values = json.loads(state.read_text())
    state.write_text(json.dumps({key: value for key, value in values.items() if key != "updates"}))
    with pytest.raises(
        RunError, match=r"\S+312/state.json does not contain the number of updates; delete \S+312 to do"
    ):
        load(run, weights=0.06)
    state.write_text(json.dumps(values))
    for width in (*PAPER, *OTHERS):
        file = copy / f"ema_power_{width}.safetensors"
        save_file({name: tensor[..., :1].clone() for name, tensor in load_file(file).items()}, file)
    with pytest.raises(
        RunError, match=r"^\S+312 does not fit \S+320: \S+ is of another size; delete \S+312 to do"
    ) as told:
        load(run, weights=0.06)
    assert "\n" not in str(told.value)
    shutil.rmtree(run / "profiles")
    (run / "profiles" / "step-00000008").mkdir(parents=True)  # no state.json
    for width in (*PAPER, *OTHERS):
        assert load(run, weights=width, device="cpu").caution is None


def test_a_copy_that_is_damaged_is_named_and_can_be_done_without(points: Path, tmp_path: Path) -> None:
    run = keeping(points, tmp_path / "run", PAPER, 80)
    last = run / "profiles" / "step-00000240"
    last.unlink()
    last.mkdir()
    for file in (points / "profiles" / last.name).iterdir():
        (last / file.name).write_bytes(file.read_bytes()[: 300 if file.name.startswith("ema_power_0.05") else None])
    with pytest.raises(
        RunError, match=r"cannot read \S+240/ema_power_0.05.safetensors: .*; delete \S+ to do without it"
    ):
        load(run, weights=0.07)
    assert load(run, weights=0.1).caution is None  # of the checkpoint alone
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    load(run, weights=0.07)


@pytest.mark.parametrize("at", [1, 6, 8, 9, 23])
def test_stopped_and_gone_on_with_a_run_has_the_same_copies(
    small: Config, whole: Whole, tmp_path: Path, at: int
) -> None:
    config = with_profiles(small, 4)
    stop, watch = stopping(at)
    assert train(config, tmp_path / "parts", stop=stop, watch=watch).stopped is signal.SIGTERM
    train(config, tmp_path / "parts", resume=True)
    assert copies(tmp_path / "parts") == [4, 8, 12, 16, 20, 24]  # none of the stop
    assert_same(whole(config), tmp_path / "parts")


def test_a_longer_run_has_the_copies_of_one_that_was_never_ended(small: Config, tmp_path: Path) -> None:
    constant = with_profiles(replace(small, optimizer=replace(small.optimizer, decay=0.0)), 5)
    train(constant, tmp_path / "whole")
    half = replace(constant, training=replace(constant.training, images=32 * 12))
    train(half, tmp_path / "parts")
    train(constant, tmp_path / "parts", resume=True)
    assert copies(tmp_path / "whole") == [5, 10, 15, 20]
    assert_same_tensors(tmp_path / "whole", tmp_path / "parts")


def test_copies_come_before_the_checkpoint_so_that_a_kill_between_them_loses_none(
    small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    config, save = with_profiles(small), checkpoint.save  # every 5 updates, as checkpoints
    train(config, tmp_path / "whole")

    def killed(root: Path, step: int, saved: checkpoint.Checkpoint) -> Path:
        if root.name == "checkpoints" and step == 10:
            raise KilledError
        return save(root, step, saved)

    monkeypatch.setattr(trainer.checkpoint, "save", killed)
    with pytest.raises(KilledError):
        train(config, tmp_path / "parts")
    assert copies(tmp_path / "parts") == [5, 10]
    monkeypatch.setattr(trainer.checkpoint, "save", save)
    train(config, tmp_path / "parts", resume=True)
    assert copies(tmp_path / "parts") == [5, 10, 15, 20]
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_an_average_that_is_not_finite_leaves_no_copy(
    small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = State.apply

    def broken(state: State, rate: float) -> None:
        apply(state, float("inf") if state.step == 6 else rate)

    monkeypatch.setattr(State, "apply", broken)
    with pytest.raises(RunError, match=r"stopped at step 8: ema_power_0.05 \S+ is not finite; earlier checkpoints"):
        train(with_profiles(small, 4), tmp_path / "run")
    assert copies(tmp_path / "run") == [4]


def test_before_the_first_update_there_is_no_average(small: Config, tmp_path: Path) -> None:
    """Updates that are not finite are skipped: nothing is stored."""
    config = with_profiles(replace(small, training=replace(small.training, images=32 * 3)), 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(update, "get_total_norm", lambda _: torch.tensor(float("nan")))
        train(config, tmp_path / "run")
    assert copies(tmp_path / "run") == []
    with pytest.raises(RunError, match=r"no update of .*run was finite by step 3: there is no average yet"):
        load(tmp_path / "run", weights=0.1)


@pytest.mark.parametrize(
    "objective",
    [Reflow(pairs=40, pair_steps=2), ProgressiveDistillation(M=4, teacher_share=0.5)],
    ids=["reflow", "progressive"],
)
def test_copies_are_of_the_last_phase(
    small: Config, tmp_path: Path, objective: Reflow | ProgressiveDistillation
) -> None:
    """Averages begin again with a phase; an earlier phase's checkpoint has its own and no copies."""
    config = replace(small, objective=objective, network=network_for(small, objective))
    config = with_profiles(replace(config, checkpoint=CheckpointConfig(every=32 * 3, keep_last=30)), 2)
    train(config, tmp_path / "whole")
    parts = trainer.segments(config)
    assert copies(tmp_path / "whole") == [step for step in range(2, 25, 2) if step > parts[-1].first]
    generator = load(tmp_path / "whole", weights=0.07, device="cpu")
    assert (generator.ema, generator.caution) == ("power 0.07", None)
    early = load(tmp_path / "whole", weights=0.07, device="cpu", step=parts[0].last)
    assert early.caution is not None
    assert early.caution.startswith("this checkpoint is of phase teacher (1 of ")
    assert "; width 0.07 can only be approximated from the stored averages (its profile is 5% off)" in early.caution
    for at in (parts[-1].first, parts[-1].first + 3):
        stop, watch = stopping(at)
        train(config, tmp_path / f"parts-{at}", stop=stop, watch=watch)
        train(config, tmp_path / f"parts-{at}", resume=True)
        assert_same(tmp_path / "whole", tmp_path / f"parts-{at}")


def test_a_teachers_last_power_average_is_not_carried_over(small: Config, tmp_path: Path) -> None:
    """One update after the hand-over every power average is the network."""
    objective = ProgressiveDistillation(M=4, teacher_share=0.5)
    config = replace(small, objective=objective, network=network_for(small, objective))
    config = with_profiles(replace(config, checkpoint=CheckpointConfig(every=32, keep_last=30)), 1)
    train(config, tmp_path / "run")
    for first in (part.first for part in trainer.segments(config)):
        at = checkpoint.directory(tmp_path / "run" / "checkpoints", first + 1)
        network = load_file(at / "network.safetensors")
        for width in PAPER:
            average = load_file(at / f"ema_power_{width}.safetensors")
            assert all(torch.equal(average[name], tensor) for name, tensor in network.items())


def test_a_run_goes_on_with_the_widths_that_it_began_with(tiny: Config, tmp_path: Path) -> None:
    train(with_profiles(tiny, 2), tmp_path / "run")
    with pytest.raises(UsageError, match=r"ema.profiles is \[0.05, 0.1\], not \[0.1\]; only --images"):
        train(with_profiles(tiny, 2, (0.1,)), tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"profiles": (0.05, 0.3)}, r"ema.profiles must be at least 0.001 and at most 0.2886, a plain mean, got 0.3"),
        ({"profiles": (1e-200,)}, r"ema.profiles must be at least 0.001 and .*, got 1e-200"),
        ({"profiles": (0.1, 0.1)}, r"ema.profiles must be different widths, got \[0.1, 0.1\]"),
        ({"profiles": (0.1,), "profile_every": 0}, r"ema.profile_every must be at least 1, got 0"),
        ({"profile_every": 64}, r"ema.profile_every does nothing without ema.profiles: set that, e.g. to 0.05 0.1"),
    ],
)
def test_widths_that_cannot_be_meant(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        EmaConfig(**values)  # type: ignore[arg-type]
