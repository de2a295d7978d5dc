"""Checkpoints appear whole or not at all; what a full or forbidden disk leaves behind."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.training.same import assert_same

from anystep.codecs import Pixels
from anystep.core.errors import RunError
from anystep.model.load import load
from anystep.run import checkpoint
from anystep.run.checkpoint import Checkpoint
from anystep.run.config import CheckpointConfig, Config
from anystep.run.facts import read_config
from anystep.training.trainer import train

SMALL = Checkpoint({"network": {"w": torch.arange(6.0).reshape(2, 3)}}, {"step": 1})


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A disk that refuses: the system fails every write beyond so many bytes of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def steps(run: Path) -> list[int]:
    return [step for step, _ in checkpoint.listing(run / "checkpoints")]


@pytest.mark.parametrize(
    ("keep_last", "keep_every", "kept"),
    [(2, None, [11, 12]), (1, 4, [4, 8, 12]), (2, 4, [4, 8, 11, 12]), (1, 5, [5, 10, 12]), (99, None, [*range(1, 13)])],
)
def test_the_newest_are_kept_and_one_for_each_multiple(
    tmp_path: Path, keep_last: int, keep_every: int | None, kept: list[int]
) -> None:
    batch = 32
    config = CheckpointConfig(keep_last=keep_last, keep_every=None if keep_every is None else keep_every * batch)
    for step in range(1, 13):
        checkpoint.save(tmp_path / "checkpoints", step, SMALL)
        checkpoint.prune(tmp_path / "checkpoints", config, batch, lambda step: True, 12)
    assert steps(tmp_path) == kept


def test_checkpoints_by_the_clock_do_not_replace_planned_ones_and_are_gone_at_the_end(tmp_path: Path) -> None:
    """Planned at multiples of 4 and at the end, 14; the others come by the clock or by a signal."""
    root, config, seen = tmp_path / "checkpoints", CheckpointConfig(keep_last=2), {}
    for step in (1, 3, 4, 6, 7, 8, 9, 10, 12, 13, 14):
        checkpoint.save(root, step, SMALL)
        checkpoint.prune(root, config, 1, lambda step: step % 4 == 0 or step == 14, 14)
        seen[step] = steps(tmp_path)
    assert (seen[3], seen[4], seen[6]) == ([1, 3], [3, 4], [4, 6])
    assert (seen[8], seen[10], seen[12]) == ([4, 7, 8], [4, 8, 9, 10], [8, 10, 12])
    assert seen[14] == [12, 14]


def test_a_checkpoint_that_a_kill_cut_short_is_ignored_and_replaced(small: Config, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(replace(small, training=replace(small.training, images=32 * 10)), run)
    for name in (".partial-00000015", ".partial-00000013", ".partial-step-00000005"):
        (run / "checkpoints" / name).mkdir()
        (run / "checkpoints" / name / "network.safetensors").write_bytes(b"half")
    assert steps(run) == [5, 10]
    train(small, run, resume=True)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-00000020", "step-00000024"]


def test_a_saved_checkpoint_comes_back_exactly(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "a": torch.randn(3, 4, generator=generator),
        "b": torch.tensor([1 / 3], dtype=torch.float64),
        "c": torch.tensor(5),
    }
    tensors["view"] = tensors["a"].T
    values = {"step": 3, "meter": {"sums": [0.1, 1 / 3, 1e300]}}
    found = checkpoint.read(checkpoint.save(tmp_path, 3, Checkpoint({"network": tensors}, values)))
    assert found.groups["network"].keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found.groups["network"][name].dtype == tensor.dtype
        assert torch.equal(found.groups["network"][name], tensor)
    assert {name: found.values[name] for name in values} == values


@pytest.mark.parametrize(
    ("limit", "at", "refused"), [(9000, 7, r"a checkpoint to \S+checkpoints"), (100, 7, r"\S+log\.jsonl")]
)
def test_a_full_disk_loses_nothing_already_written(
    small: Config, tmp_path: Path, limit: int, at: int, refused: str
) -> None:
    """The run stops with one line at the next thing that it writes; room again, it goes on to the same end."""
    train(small, tmp_path / "whole")
    run = tmp_path / "run"
    disk = files_of_at_most(limit)

    def watch(step: int, record: object) -> None:
        if step == at:
            disk.__enter__()

    with pytest.raises(RunError, match=f"cannot write {refused}: .*[Ff]ile too large") as caught:
        try:
            train(small, run, watch=watch)
        finally:
            disk.__exit__(None, None, None)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000005"]
    load(run)
    train(small, run, resume=True)
    assert_same(tmp_path / "whole", run)


def test_a_checkpoint_that_was_kept_can_be_drawn_from(small: Config, tmp_path: Path) -> None:
    """What is drawn from step 10 of a longer run is what a run of 10 steps draws."""
    constant = replace(small, optimizer=replace(small.optimizer, decay=0.0))
    keep = CheckpointConfig(every=32 * 5, keep_last=1, keep_every=32 * 10)
    run, short = tmp_path / "run", tmp_path / "short"
    train(replace(constant, checkpoint=keep), run)
    train(replace(constant, training=replace(constant.training, images=32 * 10)), short)
    drawn = load(run, device="cpu", step=10).generate(steps=4, seed=0, index=range(3))
    assert torch.equal(drawn, load(short, device="cpu").generate(steps=4, seed=0, index=range(3)))
    assert not torch.equal(drawn, load(run, device="cpu").generate(steps=4, seed=0, index=range(3)))
    assert load(run, step=10).source == "run, step 10"
    with pytest.raises(RunError, match=r"has no checkpoint of step 5; it has those of steps 10, 20, 24$"):
        load(run, step=5)


@pytest.mark.parametrize("size", [0, 300])
def test_a_disk_that_is_full_at_the_start_leaves_no_half_written_config(
    tiny: Config, tmp_path: Path, size: int
) -> None:
    with files_of_at_most(size), pytest.raises(RunError, match=r"cannot write the run directory .*[Ff]ile too large"):
        train(tiny, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()
    train(tiny, tmp_path / "run")
    assert read_config(tmp_path / "run") == replace(tiny, codec=Pixels())


def test_a_folder_that_cannot_be_made_is_named(tiny: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunError, match=f"cannot write the run directory {out}: "):
            train(tiny, out)
    assert (tmp_path / "file").read_text() == "in the way"
    with pytest.raises(RunError, match=r"cannot write a checkpoint to .*file"):
        checkpoint.save(tmp_path / "file", 1, SMALL)


def test_somebody_elses_folder_is_left_alone(tiny: Config, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    for resume in (False, True):
        with pytest.raises(RunError, match="is not empty and holds no run: choose another --out"):
            train(tiny, tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_that_was_killed_while_it_was_being_set_up_goes_on(tiny: Config, tmp_path: Path) -> None:
    """Whatever of run.json, config.json and the log was there."""
    train(tiny, tmp_path / "whole")
    for there in ([], [".partial-run.json"], ["run.json"], ["run.json", "config.json"]):
        run = tmp_path / f"after-{len(there)}-{'-'.join(there)}"
        run.mkdir()
        for name in there:
            (run / name).write_text("{" if name[0] == "." else (tmp_path / "whole" / name).read_text())
        train(tiny, run, resume=True)
        assert_same(tmp_path / "whole", run)


def test_a_run_is_not_cut_shorter_than_it_is(tiny: Config, tmp_path: Path) -> None:
    train(tiny, tmp_path / "run")
    before = (tmp_path / "run" / "config.json").read_text()
    shorter = replace(tiny, training=replace(tiny.training, images=32))
    with pytest.raises(ValueError, match=r"training\.images is 32, and .* has seen 192 already"):
        train(shorter, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "config.json").read_text() == before


def test_a_log_that_lost_lines_is_not_filled_up(tiny: Config, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny, run)
    (run / "log.jsonl").write_text("")
    train(replace(tiny, training=replace(tiny.training, images=32 * 9)), run, resume=True)
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()] == [9]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"step": "x"}, "does not fit .*invalid literal"),
        ({"groups": 3}, "cannot read .*state.json"),
        ({"meter": {}}, "does not fit .*'sums' is missing"),
        ({"meter": {"sums": [1.0], "counts": [1.0], "updates": 1, "grad_norm": 0.0}}, "does not fit .*1 cells"),
        ({"format": "other"}, "is not a checkpoint of this program"),
    ],
)
def test_a_foreign_state_is_one_line(tiny: Config, tmp_path: Path, values: dict[str, object], message: str) -> None:
    run = tmp_path / "run"
    train(tiny, run)
    state = checkpoint.listing(run / "checkpoints")[-1][1] / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | values))
    with pytest.raises(RunError, match=message) as caught:
        train(replace(tiny, training=replace(tiny.training, images=32 * 9)), run, resume=True)
    assert "\n" not in str(caught.value)


def test_parameters_of_another_network_are_named(tiny: Config, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny, run)
    values = json.loads((run / "config.json").read_text())
    values["network"]["hidden"] = 32
    (run / "config.json").write_text(json.dumps(values))
    for use in (lambda: load(run), lambda: train(read_config(run), run, resume=True)):
        with pytest.raises(RunError, match=r"does not fit .*size mismatch for patch_embed\.weight") as caught:
            use()
        assert "\n" not in str(caught.value)
