"""Every mistake gets one or two lines that say what and where, its exit code, and leaves nothing half-written."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anystep.cli.main import main
from anystep.core.errors import DataError, RunError, UsageError
from anystep.run import checkpoint

from .conftest import Command, Said


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def unframed(text: str) -> str:
    """The words of tyro's box, or of any text, in one line."""
    return " ".join(re.sub(r"[│╭╮╰╯─]|-{4,}", " ", text).split())


def assert_told(said: Said, code: int, words: str) -> None:
    """Our own message, at most two lines, or tyro's box; no traceback; the words, as a pattern."""
    assert said.code == code, said.err
    assert "Traceback" not in said.err
    if code == 2 and not said.err.startswith("anystep: "):
        assert re.search(words, unframed(said.err)), said.err
        return
    lines = said.err.strip().splitlines()
    assert lines[0].startswith("anystep: ")
    assert len(lines) <= 2, said.err
    assert re.search(words, said.err), said.err


SPACES = "data, classifier, inception, inception_paper, inception_spatial"
USAGE = [
    ("trian digits-shortcut", r"unknown subcommand 'trian'; did you mean train\?"),
    ("zzz", "unknown subcommand 'zzz'; subcommands: train, sample"),
    ("train", "train starts with a recipe, e.g. anystep train digits-shortcut"),
    ("train --out x", "train starts with a recipe"),
    ("train digits-shortcutt", "no recipe 'digits-shortcutt'; did you mean digits-shortcut, "),
    ("train nothere/config.json", "no recipe 'nothere/config.json', and no such file"),
    ("train digits-shortcut --network.hiden 3", r"options: --network.hiden, 3 .* --network.hidden INT"),
    ("train digits-shortcut --image 3", r"Unrecognized options: --image, 3 Perhaps you meant: --images N "),
    ("train digits-shortcut extra", "Unrecognized options: extra"),
    ("train digits-shortcut --images", r"Missing value for argument '--images'\. Expected 1"),
    ("train digits-shortcut --images x", "Error parsing --images: .* for int.*'x'"),
    ("train digits-shortcut --images 1.5", "Error parsing --images: .* for int.*'1.5'"),
    ("train digits-shortcut --training.batch x", "Error parsing --training.batch: .* for int.*'x'"),
    ("train digits-shortcut --optimizer.lr fast", "Error parsing --optimizer.lr: could not convert .* float: 'fast'"),
    ("train digits-shortcut --optimizer.betas 0.9", "Missing value for argument '--optimizer.betas'. Expected 2"),
    ("train digits-shortcut --optimizer.betas a b", r"Error parsing --optimizer.betas: .* \['a', 'b'\]"),
    ("train digits-shortcut --images 0", "training.images must be at least 1, got 0"),
    ("train digits-shortcut --batch -1", "training.batch must be at least 1, got -1"),
    ("train digits-shortcut --optimizer.lr inf", "optimizer.lr must be greater than 0 and finite, got inf"),
    ("train digits-shortcut --objective.share 2", r"objective.share must be in \[0, 1\], got 2.0"),
    ("train digits-shortcut --objective.M 100", "objective.M must be a power of two of at least 2, got 100"),
    ("train digits-shortcut --objective.time foo", "invalid choice 'foo' for argument '--objective.time'.*'discrete'"),
    ("train digits-shortcut --network.heads 3", r"hidden must be a multiple of heads \(3\)"),
    ("train digits-shortcut --network.patch 3", r"image sides must be multiples of patch \(3\), got 8 x 8"),
    ("train digits-shortcut --network.step-encoding none", "needs network.step_encoding log2 or continuous, got none"),
    ("train digits-shortcut --data.heldout 1", r"data.heldout must be in \[0, 1\), got 1.0"),
    ("train digits-shortcut --device gpu9", "device 'gpu9' is not available here: use auto or cpu"),
    ("train digits-shortcut --training.accumulate 3", "training.accumulate must be a divisor of training.batch"),
    ("train digits-shortcut --penalty.norm l1", r"options: --penalty.norm"),
    ("train digits-shortcut --penalty huber", r"penalty.name must be one of own, .*'huber'; did you mean pseudo_huber"),
    ("train digits-shortcut --codec pixel", "codec.name must be one of auto, .*, got 'pixel'; did you mean pixels"),
    ("train digits-shortcut --weight own_eror", "weight.name must be .*, got 'own_eror'; did you mean own_error"),
    ("train digits-shortcut --weight datetime:Datetime", "datetime has no class Datetime; did you mean datetime"),
    ("train digits-shortcut --penalty haar --penalty.bands flat", "equal weights with penalty.norm l2 are the"),
    ("train digits-shortcut --penalty haar --penalty.levels 4", "penalty.levels must be at most 3 for 8 x 8"),
    ("train digits-shortcut --penalty haar --penalty.bands fixed --penalty.weights 1 2", "weights must be 4, .* got 2"),
    ("train digits-ict --penalty haar", "haar replaces the squared error, and ict has another error: remove the"),
    ("train digits-shortcut --weight own", r"weight.name must be one of none, own_error, .*, got 'own'"),
    ("train digits-shortcut --weight own_error --weight.cap 0", "weight.cap must be at least 1 and"),
    ("train digits-imm --weight own_error", "weight own_error acts on the error of each example, and imm compares gr"),
    ("train digits-imm --penalty squared", "acts on the error of each example, and imm compares gr"),
    ("train digits-shortcut --ema.profiles 0.05 0.3", "ema.profiles must be at least 0.001 and at most"),
    ("train digits-shortcut --ema.profiles 1e-200", "ema.profiles must be at least 0.001 and .*, got 1e-200"),
    ("train digits-shortcut --ema.profiles 0.1 0.1", r"ema.profiles must be different widths, got \[0.1, 0.1\]"),
    ("train digits-shortcut --ema.profiles wide", r"Error parsing --ema.profiles: .* \['wide'\]"),
    ("train digits-shortcut --ema.profile-every 64", "ema.profile_every does nothing without ema.profiles: set that"),
    ("train folder-shortcut", "needs data: set its place with --data.path"),
    ("train vectors-shortcut", "needs data: set its place with --data.path"),
    ("train digits-shortcut --batch 16", "training.batch 16 is 4 examples, fewer than the 5 levels of M = 32: raise"),
    ("train eight_gaussians-shortcut --objective.guidance 1.5", "objective.guidance 1.5 needs classes, and this data"),
    ("train digits-shortcut --out RUNS/digits --resume --optimizer.lr 1", "optimizer.lr is 0.01, not 1.0; only"),
    ("train digits-shortcut --out RUNS/digits --resume --network.patch 2", "network.patch is 4, not 2; only --images"),
    ("train two_moons-shortcut --out RUNS/digits --resume", "holds a run of digits-shortcut, not of two_moons"),
    ("train digits-shortcut --out RUNS/digits --resume --images 32", "training.images is 32, and .* has seen 320"),
    ("train digits-reflow --images 128", "images 128 is 1 update, too few for the 2 phases of reflow: raise it"),
    ("train digits-reflow --objective.teacher-share 1", r"objective.teacher_share must be in \(0, 1\), got 1.0"),
    ("train digits-diffusion --network.prediction velocity", "diffusion needs network.prediction noise, got velocity"),
    ("train digits-mean_flow --network.step-encoding log2", "needs network.step_encoding continuous, got log2"),
    ("train digits-imm --training.accumulate 128", "compares examples in groups of 4: training.batch / training.acc"),
    ("train two_moons-reflow --objective.guidance 2", "objective.guidance 2 needs classes, and this data has none"),
    ("train two_moons-shortcut --init-from RUNS/digits", "a DiT needs images of shape"),
    ("train digits-diffusion --init-from RUNS/digits", r"cannot initialise diffusion from .* \(shortcut\): its"),
    ("train digits-mean_flow --training.compile", "which torch.compile does not support: remove"),
    ("sample", r"Missing from anystep sample: RUN .*--steps"),
    ("sample RUNS/digits", "Missing from anystep sample: --steps"),
    ("sample RUNS/digits --steps", "--steps needs at least one number"),
    ("sample RUNS/digits --steps 0", "--steps must be at least 1, got 0"),
    ("sample RUNS/digits --steps x", r"Error parsing --steps: .* arguments: \['x'\]"),
    ("sample RUNS/digits --steps 1 --num 0", "--num must be at least 1, got 0"),
    ("sample RUNS/digits --steps 1 --label 10", r"label must be in 0\.\.9, got 10"),
    ("sample RUNS/digits --steps 1 --label -1", r"label must be in 0\.\.9, got -1"),
    ("sample RUNS/digits --steps 1 --guidance nan", "guidance must be finite, got nan"),
    ("sample RUNS/digits --steps 1 --format jpg", r"invalid choice 'jpg' for .*'--format'(?=.*'png')(?=.*'npz')"),
    ("sample RUNS/digits --steps 1 --weights emma", "--weights must be ema, raw or the width of a power EMA .* 'emma'"),
    ("sample RUNS/digits --steps 1 --weights 0.5", "weights must be at least 0.001 and at most 0.2886, .* got 0.5"),
    ("sample RUNS/digits --steps 1 --weights nan", "weights must be at least 0.001 and at most 0.2886, .* got nan"),
    ("sample RUNS/digits --steps 1 --weights 1e-160", "weights must be at least 0.001 and at most .* got 1e-160"),
    ("sample RUNS/digits --steps 1 --weights", "Missing value for argument '--weights'"),
    ("sample RUNS/digits --steps 1 --weights 0.1 0.2", "Unrecognized options: 0.2"),
    ("sample RUNS/digits --steps 1 --weights raw,ema", "--weights must be ema, raw or the width .* 'raw,ema'"),
    ("sample RUNS/digits --steps 1 --refine -1", "--refine must be numbers of samples, from 0, got"),
    ("sample RUNS/digits --steps 1 --interpolate 9 --num 1", "--interpolate needs two samples, got 1"),
    ("sample RUNS/digits --steps 1 --device gpu9", "device 'gpu9' is not available here"),
    ("sample RUNS/points --steps 1 --guidance 1.5", "guidance 1.5 needs classes, and this model is unconditional"),
    ("sample RUNS/points --steps 1 --label 1", "this model is unconditional"),
    ("sample RUNS/guided --steps 1 --guidance 2", "already built into these steps: guiding by 2 would guide twice"),
    ("evaluate RUNS/guided --steps 1 --guidance 2", "would guide twice"),
    ("evaluate RUNS/points --steps 1 --guidance 2", "this model is unconditional"),
    ("evaluate RUNS/points --steps 1 --metrics accuracy", "accuracy needs classes"),
    ("evaluate RUNS/digits --steps 0", "--steps must be at least 1, got 0"),
    ("evaluate RUNS/digits --steps", "--steps needs at least one number"),
    ("evaluate RUNS/digits --steps 1 --num 1", "num must be at least 4"),
    ("evaluate RUNS/digits --steps 1 --batch 0", "--batch must be at least 1, got 0"),
    ("evaluate RUNS/digits --steps 1 --metrics recall@clip", "recall@clip: features must be among data, .*got 'clip'"),
    ("evaluate RUNS/digits --steps 1 --metrics fvd", "metrics must be among frechet, .*got 'fvd'"),
    ("evaluate RUNS/digits --steps 1 --weights ema emma", "--weights must be ema, raw or .* such as 0.1, got 'emma'"),
    ("evaluate RUNS/digits --steps 1 --weights 0", "weights must be at least 0.001 and at most 0.2886, .* got 0.0"),
    ("evaluate RUNS/digits --steps 1 --guidance", "guidance must have at least one value"),
    ("evaluate RUNS/digits --steps 1 --weights", "--weights needs at least one of ema, raw or a width, e.g. --weights"),
    ("compare", "compare starts with a recipe, e.g. anystep compare digits"),
    ("compare --steps 1", "compare starts with a recipe"),
    ("compare digts", "no family of recipes 'digts'; did you mean digits?"),
    ("compare digits-shortcutt", "no recipe 'digits-shortcutt'; did you mean digits"),
    ("compare digits --methods shortcut,flowmatching", "got 'flowmatching'; did you mean flow_matching"),
    ("compare digits --methods", "methods must name at least one of shortcut, .*got none"),
    ("compare digits --metrics fvd", "metrics must be among frechet, .*got 'fvd'"),
    (
        "compare two_moons --metrics energy@clip",
        f"energy@clip: features must be among {SPACES}, got 'clip'",
    ),
    ("compare two_moons --metrics accuracy", "accuracy needs classes, and this data has none"),
    ("compare digits --steps 0", "steps must be at least 1, got 0"),
    ("compare digits --steps", "steps must be at least 1, got none"),
    ("compare digits --num 3", "num must be at least 4, got 3"),
    ("compare digits --seeds", "seeds must be at least 0, got none"),
    ("compare digits --jobs 0", "--jobs must be at least 1, got 0"),
    ("compare digits --images 128", r"\w+: at the cost of --images 128, .* too few .*\nor .* --without reflow,prog"),
    ("compare digits --images 640 --batch 64", r"of --images 640, .*\nor .* --without progressive_distillation\n"),
    ("compare digits --methods shortcut --guidance 2", r"guidance needs a method .* \(improved_shortcut, .*\+guid"),
    ("compare digits --guidance nan", "guidance must be a finite number, got nan"),
    ("compare two_moons --methods +guidance --guidance 2", "guidance needs classes, and this data has none"),
    ("compare two_moons --methods shortcut,+interval", r"\+interval needs classes, .*--without \+guidance,\+interval"),
    ("compare digits --methods shortcut,+guidence", r"got '\+guidence'; did you mean \+guidance\?"),
    ("compare digits --without shortct", r"without must be among .* got 'shortct'; did you mean shortcut or "),
    ("compare digits --methods imm,ict --without ict imm", "without leaves no method to compare"),
    ("compare shortcut", "shortcut is a method: name data, e.g. anystep compare digits --methods shortcut"),
    ("compare nowhere/config.json", "no recipe 'nowhere/config.json', and no such file"),
    ("compare begun.json", r"init.run \S+/digits: .* compare a config without it"),
    ("compare digits --batch 16", "shortcut: .*fewer than the 5 levels"),
    ("compare digits --network.step-encoding log2", "--network.step-encoding is set by each method: omit it"),
    ("compare digits --network.patch 3", r"image sides must be multiples of patch \(3\), got 8 x 8"),
    ("compare digits --training.seed 3", "--training.seed is replaced by --seeds: give that"),
    ("compare digits --objective.share 0.5", "Unrecognized options: --objective.share"),
    ("compare digits --device gpu9", "device 'gpu9' is not available here: use auto or cpu"),
    ("compare digits --out RUNS/digits", "digits is a run directory: .* another --out"),
    ("compare folder", "needs data: set its place with --data.path"),
    ("report", "report needs a run directory"),
    ("report RUNS/digits --steps 0", "--steps must be at least 1, got 0"),
    ("report RUNS/digits RUNS/points", "same kind and size of data"),
    ("recipes x", "no recipe 'x'; anystep recipes lists them"),
    ("recipes digits-shortcutt", "no recipe 'digits-shortcutt'; did you mean digits-shortcut, "),
    ("recipes digits --data x", "digits-shortcut has its own data: omit --data"),
    ("recipes --data x", "--data is for one recipe: anystep recipes NAME --data PATH"),
    ("recipes digits-shortcut folder", "Unrecognized options: folder"),
    ("doctor --foo", "Unrecognized options: --foo"),
]  # fmt: skip

FAILURES = [
    ("train digits-shortcut --out RUNS/digits", "already holds a run: continue it with --resume, or choose another"),
    ("train digits-shortcut --out file", "cannot write the run directory file"),
    ("train digits-shortcut --out file/run", "cannot write the run directory file/run: Not a directory"),
    ("train digits-shortcut --out notes", "notes is not empty and holds no run"),
    ("train folder-shortcut --data.path empty", "empty: no images in this folder"),
    ("train folder-shortcut --data.path nowhere", "nowhere: no such folder"),
    ("train folder-shortcut --data.path file", "file: not a folder"),
    ("train folder-shortcut --data.path cut.npz", r"cut.npz: not a folder; arrays have the recipes npz32-\*"),
    ("train folder-shortcut --data.path notes", "notes: no images in this folder; looked for .png, .*, found 1 .tex"),
    ("train npz-shortcut --data.path sizes", "sizes: a folder, expected an .npz file; folders of images have"),
    ("train folder-shortcut --data.path sizes", r"3\.png: is 9x8 pixels, but \S+0\.png is 8x8 \(--data.size crops"),
    ("train folder-shortcut --data.path broken", r"broken/0\.png: .*\n.* --data.on-bad-image skip"),
    ("train npz-shortcut --data.path labels.npz", "labels.npz, labels: row 3 is -1, expected an integer from 0"),
    ("train npz-shortcut --data.path cut.npz", "cut.npz: not a complete .npz file"),
    ("train notes", "notes is not a run directory: it has no config.json"),
    ("train broken.json", "broken.json is not JSON"),
    ("train digits-shortcut --init-from nowhere", "nowhere is not a run directory: it has no config.json"),
    ("train digits-shortcut --init-from notes", "notes is not a run directory: it has no config.json"),
    ("train digits-shortcut --init.run RUNS/digits", "has network.hidden 16, and this run 128: take the network from"),
    ("sample nowhere --steps 1", "nowhere is not a run directory: it has no config.json"),
    ("sample notes --steps 1", "notes is not a run directory: it has no config.json"),
    ("sample RUNS/digits --steps 1 --checkpoint 5", "has no checkpoint of step 5; it has those of steps 10"),
    ("evaluate RUNS/digits --steps 1 --checkpoint 5", "has no checkpoint of step 5; it has those of steps 10"),
    ("sample RUNS/digits --steps 1 --weights 0.1", "digits has no power averages to combine: train it with --ema"),
    ("evaluate RUNS/digits --steps 1 --weights ema 0.1", "digits has no power averages to combine: train it"),
    ("sample RUNS/digits --steps 1 --num 2 --out file", "^anystep: file: File exists"),
    ("evaluate RUNS/digits --steps 1 --num 8 --json notes", "cannot write notes: Is a directory"),
    ("evaluate RUNS/digits --steps 1 --num 1000000000 --json file/x.json", r"cannot write file/x\.json: .*not a dir"),
    ("compare folder --data.path empty", "empty: no images in this folder"),
    ("compare broken.json", "broken.json is not JSON"),
    ("compare digits --out file", r"cannot write file/compare\.json: .*not a directory"),
    ("compare digits --json notes", "cannot write notes: Is a directory"),
    ("report notes", "it has no config.json"),
    ("recipes --json file/recipes.json", r"cannot write file/recipes\.json: .*not a directory"),
    ("doctor --json notes", "cannot write notes: Is a directory"),
]  # fmt: skip


BEGUN = {"init": {"run": "RUNS/digits", "weights": "ema"}}


@pytest.fixture
def lying_about(command: Command, runs: Path, pixels: np.ndarray) -> None:
    """Files and folders that are in the way, empty, mixed or broken."""
    for folder in ("empty", "notes", "sizes", "broken"):
        Path(folder).mkdir()
    Path("file").write_text("x")
    Path("notes/thesis.tex").write_text("x")
    Path("broken.json").write_text("{")
    Path("begun.json").write_text(json.dumps(json.loads((runs / "digits/config.json").read_text()) | BEGUN))
    for n, image in enumerate(pixels[:3]):
        Image.fromarray(image).save(f"sizes/{n}.png")
    Image.new("RGB", (9, 8)).save("sizes/3.png")
    Path("broken/0.png").write_bytes(Path("sizes/0.png").read_bytes()[:60])
    np.savez("labels.npz", images=pixels, labels=np.array([0, 1, 0, -1] * 3))
    Path("cut.npz").write_bytes(Path("labels.npz").read_bytes()[:500])


@pytest.mark.usefixtures("lying_about")
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [(*case[:1], 2, *case[1:]) for case in USAGE] + [(*case[:1], 1, *case[1:]) for case in FAILURES],
)
def test_a_mistake_is_told_and_nothing_is_written(
    command: Command, runs: Path, words: str, code: int, message: str
) -> None:
    untouched = [runs / "digits" / "config.json", runs / "digits" / "log.jsonl"]
    before = tree(Path()), [path.read_bytes() for path in untouched]
    said = command(words)
    assert_told(said, code, message)
    assert (tree(Path()), [path.read_bytes() for path in untouched]) == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("cut", r"cannot read \S+ema_evaluation\.safetensors: .*; delete \S+step-00000010 to use"),
        ("pickle", r"cannot read \S+ema_evaluation\.safetensors: "),
        ("foreign", r"state\.json is not a checkpoint of this program"),
        ("other network", "does not fit .*size mismatch"),
        ("none", "has no checkpoint yet: train it first, or resume it with --resume"),
        ("no facts", r"run is not a run directory: it has no run.json"),
    ],
)
def test_a_truncated_or_foreign_checkpoint_is_named(command: Command, runs: Path, damage: str, message: str) -> None:
    shutil.copytree(runs / "digits", "run")
    ((_, last),) = checkpoint.listing(Path("run/checkpoints"))
    weights = last / "ema_evaluation.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-40])
    elif damage == "pickle":
        weights.write_bytes(b"\x80\x04\x95 a pickle from somewhere")
    elif damage == "foreign":
        (last / "state.json").write_text('{"global_step": 3}')
    elif damage == "other network":
        values = json.loads(Path("run/config.json").read_text())
        values["network"]["hidden"] = 32
        Path("run/config.json").write_text(json.dumps(values))
    elif damage == "none":
        shutil.rmtree(last)
    else:
        Path("run/run.json").unlink()
    before = tree(Path())
    assert_told(command("sample run --steps 1"), 1, message)
    assert_told(command("evaluate run --steps 1"), 1, message)
    assert tree(Path()) == before


def test_pictures_of_several_modes_are_no_mistake(command: Command, pixels: np.ndarray) -> None:
    """Grey, grey with alpha, palette, RGB, RGBA and 16 bits of one size are one set of pictures."""
    Path("modes").mkdir()
    rgb = [Image.fromarray(image) for image in pixels]
    for n, mode in enumerate(["L", "LA", "P", "RGB", "RGBA", "1"]):
        rgb[n].convert(mode).save(f"modes/{n}.png")
    Image.fromarray(pixels[6, ..., 0].astype(np.uint16) * 257).save("modes/6.png")
    said = command("train folder-shortcut --data.path modes DIT --out run")
    assert said.code == 0, said.err
    assert json.loads(Path("run/run.json").read_text())["data"]["shape"] == [3, 8, 8]


def test_a_bad_picture_may_be_skipped(command: Command, pixels: np.ndarray) -> None:
    Path("some").mkdir()
    for n, image in enumerate(pixels):
        Image.fromarray(image).save(f"some/{n}.png")
    Path("some/5.png").write_bytes(b"not a picture")
    assert_told(command("train folder-shortcut --data.path some DIT --out run"), 1, r"some/5\.png: no readable")
    assert not Path("run").exists()
    assert command("train folder-shortcut --data.path some --data.on-bad-image skip DIT --out run").code == 0
    assert json.loads(Path("run/run.json").read_text())["data"]["size"] == 11


@pytest.mark.parametrize("columns", ["40", "80", "300"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_narrow_or_plain_terminal_shows_the_whole_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, columns: str, encoding: str
) -> None:
    """tyro frames and wraps by the terminal's width, and frames by what standard output can show."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", columns)
    for words, message in (
        ("train digits-shortcut --network.hiden 3", "Unrecognized options: --network.hiden, 3 "),
        ("sample run --steps 1 --seed x", "Error parsing --seed: invalid literal for int() with base 10: 'x'"),
        ("train digits-shortcut --network.heads 3", "hidden must be a multiple of heads (3), got 128"),
        ("sample", "Missing from anystep sample: RUN Run directory. (required) --steps"),
        ("train", "anystep: train starts with a recipe, e.g. anystep train digits-shortcut"),
    ):
        with (
            (tmp_path / "out").open("w", encoding=encoding) as out,
            (tmp_path / "err").open("w", encoding=encoding, errors="backslashreplace") as err,  # as Python's own is
        ):
            monkeypatch.setattr("sys.stdout", out)
            monkeypatch.setattr("sys.stderr", err)
            assert main(words.split()) == 2
            monkeypatch.undo()
            monkeypatch.setenv("COLUMNS", columns)
        shown = (tmp_path / "err").read_text(encoding)
        assert message in unframed(shown)
        if words != "train":
            assert max(map(len, shown.splitlines())) <= int(columns)


def test_a_fault_of_the_program_is_two_lines_and_debug_shows_where(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(argv: object) -> int:
        raise LookupError("the first line\nthe second")

    monkeypatch.setattr("anystep.cli.doctor.run", broken)
    assert_told(
        command("doctor"), 1, "LookupError: the first line\nthis is a fault of the program; --debug shows where"
    )
    with pytest.raises(LookupError):
        command("doctor --debug")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "anystep: stopped"),
        (MemoryError("Unable to allocate 9 GiB"), 1, r"out of memory .*\ngenerate fewer samples at a time"),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, r"out of memory .*\ngenerate fewer samples at a time"),
        (RuntimeError("allocator of words"), 1, "fault of the program"),
        (
            ValueError("deep inside\nof a library"),
            1,
            "^anystep: ValueError: deep inside\nthis is a fault of the program",
        ),
        (UsageError("no such thing"), 2, "^anystep: no such thing\n$"),
        (DataError("row 3 of x.npz is not a number"), 1, "^anystep: row 3 of x.npz is not a number\n$"),
        (RunError("cannot read run"), 1, "^anystep: cannot read run\n$"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
            1,
            "out of memory",
        ),
        (ImportError("figures need matplotlib: pip install -e '.[report]'"), 1, "pip install -e '.\\[report"),
        (PermissionError(13, "Permission denied", "runs"), 1, "runs: Permission denied"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_the_machine_refuses_is_said_in_its_words(
    command: Command, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("anystep.model.generator.Generator.generate", refused)
    for verb in ("sample", "evaluate"):
        assert_told(command(f"{verb} RUNS/digits --steps 1 --num 8"), code, message)
    assert tree(Path()) == {}
