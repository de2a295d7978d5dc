"""One update after another: what is skipped, what stops a run, and what changes nothing."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from anystep.core.errors import RunError
from anystep.model.load import load
from anystep.objectives import ConsistencyDistillation, Losses, Objective, Shortcut
from anystep.recipes.method import network_for
from anystep.run import checkpoint
from anystep.run.config import CheckpointConfig, Config, LogConfig
from anystep.run.facts import DataFacts
from anystep.training.state import State
from anystep.training.trainer import train


def short(config: Config, steps: int, **training: Any) -> Config:
    """A run of so many updates, with a checkpoint and a log record after each."""
    batch = config.training.batch
    return replace(
        config,
        training=replace(config.training, images=batch * steps, **training),
        checkpoint=CheckpointConfig(every=batch, keep_last=steps),
        log=LogConfig(every=batch),
    )


def tensors(run: Path, step: int) -> dict[str, torch.Tensor]:
    files = sorted(checkpoint.directory(run / "checkpoints", step).glob("*.safetensors"))
    return {f"{file.stem}/{name}": tensor for file in files for name, tensor in load_file(file).items()}


def log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def parameters(run: Path) -> torch.Tensor:
    last = checkpoint.listing(run / "checkpoints")[-1][1]
    return torch.cat([tensor.flatten() for tensor in load_file(last / "network.safetensors").values()])


@dataclass(frozen=True)
class Sometimes(Shortcut):
    """A shortcut model whose loss, or whose gradient alone, is not finite at some steps."""

    bad: ClassVar[frozenset[int]] = frozenset()
    gradient_only: ClassVar[bool] = False

    def loss(self, networks, batch, draw, progress, charge=None) -> Losses:
        losses = super().loss(networks, batch, draw, progress, charge)
        rows = losses.rows
        if progress.step in self.bad:
            rows = rows + (rows - rows.detach()).sqrt() if self.gradient_only else rows * math.nan
        return replace(losses, rows=rows)


def test_averages_follow_the_parameters_and_count_only_updates_that_were_made(
    small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their warm-up goes on by updates, not by steps: (1 + n)/(10 + n) after n of them, up to 0.9 and 0.99."""
    monkeypatch.setattr(Sometimes, "bad", frozenset({1}))
    train(short(replace(small, objective=Sometimes()), 5), tmp_path / "run")
    for update, step in enumerate([3, 4, 5], start=1):  # step 1 was update 0, step 2 was skipped
        before, after = tensors(tmp_path / "run", step - 1), tensors(tmp_path / "run", step)
        decay = (1 + update) / (10 + update)
        for average in ("ema_target", "ema_evaluation"):
            for name in (key for key in after if key.startswith("network/")):
                mine = name.replace("network", average)
                expected = decay * before[mine] + (1 - decay) * after[name]
                torch.testing.assert_close(after[mine], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("gradient_only", [False, True], ids=["loss", "gradient"])
def test_an_update_that_is_not_finite_is_skipped_and_counted(
    small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gradient_only: bool
) -> None:
    monkeypatch.setattr(Sometimes, "bad", frozenset({2, 3, 5}))
    monkeypatch.setattr(Sometimes, "gradient_only", gradient_only)
    config = short(replace(small, objective=Sometimes()), 7, max_nonfinite=3)
    train(config, tmp_path / "run")
    for step in range(1, 7):
        before, after = tensors(tmp_path / "run", step), tensors(tmp_path / "run", step + 1)
        same = [name for name in after if name in before and torch.equal(after[name], before[name])]
        if step in Sometimes.bad:
            assert same == list(after)
        else:
            assert {name.partition("/")[0] for name in after if name not in same} == {
                "network", "ema_target", "ema_evaluation", "optimizer",
            }  # fmt: skip
    records = log(tmp_path / "run")
    assert [record["skipped"] for record in records] == [0, 0, 1, 2, 2, 3, 3]
    assert [record["loss"] is None for record in records] == [step in Sometimes.bad for step in range(7)]


def test_too_many_in_a_row_stop_the_run_and_its_last_checkpoint_is_good(
    small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sometimes, "bad", frozenset({1, 4, 5, 6}))
    run, config = tmp_path / "run", short(replace(small, objective=Sometimes()), 9, max_nonfinite=3)
    with pytest.raises(RunError, match=r"stopped at step 7: .* not finite in 3 updates in a row") as caught:
        train(config, run)
    assert "\n" not in str(caught.value)
    assert torch.isfinite(load(run).generate(steps=2, seed=0, index=range(2))).all()
    monkeypatch.setattr(Sometimes, "bad", frozenset())
    assert train(config, run, resume=True).step == 9
    assert log(run)[-1]["skipped"] == 3  # steps 2, 5, 6: the resumed run made step 7 again, and it was good


def test_parameters_that_are_not_finite_are_never_saved(
    small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update can make them so before any loss tells: the run stops, what was saved before stays."""
    original = State.apply

    def overflowing(state: State, rate: float) -> None:
        original(state, rate)
        if state.step == 3:
            next(state.network.parameters()).data[0] = math.inf

    monkeypatch.setattr(State, "apply", overflowing)
    run = tmp_path / "run"
    with pytest.raises(RunError, match=r"stopped at step 4: network .* is not finite; earlier checkpoints are intact"):
        train(short(small, 8), run)
    assert [step for step, _ in checkpoint.listing(run / "checkpoints")] == [1, 2, 3]
    assert all(torch.isfinite(tensor).all() for tensor in tensors(run, 3).values())


def test_micro_batches_make_the_same_update(small: Config, tmp_path: Path) -> None:
    """To rounding; a large epsilon keeps Adam from magnifying that where a gradient is nearly zero."""
    smooth = short(replace(small, optimizer=replace(small.optimizer, eps=0.1)), 8)
    train(smooth, tmp_path / "one")
    train(short(smooth, 8, accumulate=4), tmp_path / "four")
    one, four = parameters(tmp_path / "one"), parameters(tmp_path / "four")
    torch.testing.assert_close(four, one, rtol=0, atol=1e-6)
    assert not torch.equal(one, torch.zeros_like(one))
    for a, b in zip(log(tmp_path / "one"), log(tmp_path / "four"), strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
        assert b["loss_by_level"] == pytest.approx(a["loss_by_level"], rel=1e-4)


def test_clipping_scales_the_whole_gradient_down_to_the_norm_and_never_up(
    small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: list[float] = []

    def note(state: State, rate: float) -> None:
        norms.append(math.sqrt(sum(float(p.grad.square().sum()) for p in state.network.parameters())))

    monkeypatch.setattr(State, "apply", note)
    for clip in (None, 0.01, 1e6):
        config = replace(short(small, 2), optimizer=replace(small.optimizer, clip_norm=clip))
        train(config, tmp_path / f"{clip}")
    free, clipped, loose = norms[:2], norms[2:4], norms[4:]
    assert min(free) > 0.01
    assert clipped == pytest.approx([0.01, 0.01], rel=1e-3)
    assert loose == free
    assert [r["grad_norm"] for r in log(tmp_path / "0.01")] == pytest.approx(free, rel=1e-5)  # as it was before


def test_bfloat16_trains_as_float32_does_at_first(small: Config, tmp_path: Path) -> None:
    faster = replace(small, optimizer=replace(small.optimizer, lr=3e-3, warmup=0, decay=0.0))
    train(short(faster, 12), tmp_path / "float32")
    train(short(faster, 12, precision="bfloat16"), tmp_path / "bfloat16")
    exact, rounded = ([record["loss"] for record in log(tmp_path / name)] for name in ("float32", "bfloat16"))
    np.testing.assert_allclose(rounded, exact, rtol=0.01)
    assert rounded != exact
    assert {tensor.dtype for tensor in tensors(tmp_path / "bfloat16", 12).values()} == {torch.float32}


@pytest.mark.parametrize(
    ("objective", "networks"),
    [(Shortcut(guidance=1.5), 2), (ConsistencyDistillation(M=8), 3)],
    ids=["target", "teacher"],
)
def test_the_compile_option_compiles_and_changes_nothing_else(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: Objective, networks: int
) -> None:
    """The network, the average that makes targets, and the teacher that the first phase leaves."""
    from torch._dynamo.testing import CompileCounter

    counter, original, compiled = CompileCounter(), nn.Module.compile, []

    def counted(module: nn.Module) -> None:
        compiled.append(module)
        original(module, backend=counter)

    monkeypatch.setattr(nn.Module, "compile", counted)
    tiny = replace(tiny, objective=objective, network=network_for(tiny, objective))
    train(tiny, tmp_path / "plain")
    assert counter.frame_count == 0
    train(replace(tiny, training=replace(tiny.training, compile=True)), tmp_path / "compiled")
    assert len(compiled) == networks and counter.frame_count >= 2  # two that are never trained may share their code
    torch.testing.assert_close(parameters(tmp_path / "compiled"), parameters(tmp_path / "plain"), rtol=0, atol=1e-5)
    load(tmp_path / "compiled")  # its parameters have the names that they always have


def test_the_precision_of_matrix_products_is_the_runs_while_it_trains_and_then_the_callers_again(
    tiny: Config, tmp_path: Path
) -> None:
    """torch has one for the whole process."""
    high, seen = replace(tiny, training=replace(tiny.training, matmul_precision="high")), []

    def watch(step: int, record: object) -> None:
        seen.append(torch.get_float32_matmul_precision())
        if step == 3:
            raise KeyboardInterrupt

    before = torch.get_float32_matmul_precision()
    with pytest.raises(KeyboardInterrupt):
        train(high, tmp_path / "run", watch=watch)
    assert seen == ["high"] * 3 and before != "high"
    assert torch.get_float32_matmul_precision() == before


def test_a_network_is_initialised_without_a_word_to_any_gpu(small: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> None:
        raise AssertionError("a GPU was asked")

    facts = DataFacts.of(small.data.open())
    for name in ("device_count", "manual_seed_all", "get_rng_state", "set_rng_state"):
        monkeypatch.setattr(torch.cuda, name, asked)
    before = torch.get_rng_state()
    State(small, facts, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_networks_start_depends_on_the_seed_alone(small: Config) -> None:
    facts = DataFacts.of(small.data.open())
    torch.manual_seed(0)
    one = State(small, facts, torch.device("cpu")).network.state_dict()
    torch.manual_seed(1)
    other = State(small, facts, torch.device("cpu")).network.state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    reseeded = replace(small, training=replace(small.training, seed=4))
    third = State(reseeded, facts, torch.device("cpu")).network.state_dict()
    assert not all(torch.equal(tensor, third[name]) for name, tensor in one.items())
