"""`anystep data inspect`: what it prints, and that nothing lands among the images."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anystep.cli.train import parse_train
from anystep.data import Folder, Npz

from .conftest import Command
from .test_mistakes import assert_told, tree


@pytest.fixture
def pictures(command: Command, pixels: np.ndarray) -> Path:
    """Two classes of 4 and 8 images of 8 x 8 pixels in the working folder."""
    for n, image in enumerate(pixels):
        path = Path("pictures", "few" if n < 4 else "many", f"{n}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return Path("pictures")


def test_what_is_printed_of_a_folder(command: Command, pictures: Path) -> None:
    (pictures / "few" / "notes.txt").write_text("")
    said = command("data inspect pictures --json found.json")
    assert (said.code, said.err) == (0, "")
    rows = dict(re.findall(r"^(\S[\w ]*?)  +(.*)$", said.out, re.MULTILINE))
    assert rows == {
        "images": "12",
        "sizes": "all 8 x 8",
        "modes": "RGB 12",
        "ignored": "1 other file: 1 .txt (few/notes.txt)",
        "classes": "2, the smallest is few: many (8), few (4)",
        "a run gets": "32 x 32 rgb, the centre square, resized (--data.size)",
        "held out": "none; --data.heldout 0.1 keeps a tenth for evaluate",
        "sheet": "inspect.png",
    }
    assert json.loads(Path("found.json").read_text())["classes"] == {"many": 8, "few": 4}
    with Image.open("inspect.png") as sheet:
        assert sheet.height > 2 * 64


def test_the_command_at_the_end_trains_on_what_was_seen(command: Command, pictures: Path, pixels: np.ndarray) -> None:
    def source(words: str) -> object:
        said = command(f"data inspect {words} --no-sheet")
        assert said.code == 0, said.err
        line = said.out.splitlines()[-1]
        assert line.startswith("train on it: anystep train ")
        return parse_train(shlex.split(line)[5:])[1].data

    here = str(pictures.resolve())
    assert source("pictures") == Folder(path=here, size=32)
    words = "--data.size 8 --data.heldout 0.25 --data.no-labels --data.on-bad-image skip"
    assert source(f"pictures {words}") == Folder(path=here, size=8, heldout=0.25, labels=False, on_bad_image="skip")
    np.savez("a.npz", x=pixels, y=np.arange(12) % 3)
    assert source("a.npz --data.labels y") == Npz(path=str(Path("a.npz").resolve()), images="x", labels="y", size=32)
    np.savez("v.npz", vectors=np.ones((9, 2)) * np.arange(9)[:, None])
    assert source("v.npz") == Npz(path=str(Path("v.npz").resolve()), images="vectors", labels=None)


def test_images_of_the_package_are_inspected_by_name(command: Command) -> None:
    said = command("data inspect emoji --data.heldout 0.1 --no-sheet --json found.json")
    assert said.code == 0, said.err
    assert "images      1,906\n" in said.out and "a run gets  32 x 32 rgb, as stored\n" in said.out
    assert "held out    191 (--data.heldout 0.1)\n" in said.out
    assert said.out.endswith("anystep train emoji-shortcut --data.heldout 0.1 --out runs/emoji\n")
    found = json.loads(Path("found.json").read_text())
    assert found["heldout"] == 191 and found["examples"] == 1715 and len(found["classes"]) == 9
    assert command("data inspect digits --no-sheet --data.heldout 0").out.count("held out    none") == 1


@pytest.mark.parametrize("place", ["pictures", "pictures/few"])
def test_no_sheet_lands_among_the_images(
    command: Command, monkeypatch: pytest.MonkeyPatch, pictures: Path, place: str
) -> None:
    before, root = tree(pictures), pictures.resolve()
    monkeypatch.chdir(place)
    said = command(f"data inspect {root}")
    assert said.code == 0 and "note: no contact sheet among the images" in said.err
    assert tree(root) == before


def test_data_that_a_run_cannot_use_is_shown_and_told(command: Command, pictures: Path) -> None:
    (pictures / "many" / "x.png").write_bytes(b"no image")
    said = command("data inspect pictures")
    assert_told(said, 1, r"many/x\.png: no readable .*\nrepair or remove it, .* --data.on-bad-image skip")
    assert "unusable    1\n" in said.out and "train on it" not in said.out
    assert command("data inspect pictures --data.on-bad-image skip").code == 0


def test_an_npz_without_the_usual_names_has_its_arrays_listed(command: Command) -> None:
    np.savez("a.npz", episodes=np.arange(3), action=np.zeros((5, 2), np.float32))
    said = command("data inspect a.npz")
    assert_told(said, 1, "a.npz: no array 'images'; the file contains episodes, action: --data.images NAME")
    assert re.search(r"action +5 x 2 +float32", said.out)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("data inspct x", 2, r"unknown verb 'inspct' of anystep data; did you mean inspect\?"),
        ("data zzz", 2, "unknown verb 'zzz' of anystep data; verbs: inspect, classifier"),
        ("data inspect", 2, "data inspect starts with a folder or file, e.g. anystep data inspect pictures"),
        ("data inspect --no-sheet pictures", 2, "data inspect starts with a folder or file"),
        ("data inspect nowhere", 1, "nowhere: no such file or folder"),
        ("data inspect empty", 1, "empty: no images in this folder; looked for .png, .jpg, .jpeg, .webp, found 1 .gif"),
        ("data inspect empty/a.gif", 1, "a.gif: expected a folder of images, an .npz or a .parquet file"),
        ("data inspect cut.npz", 1, "cut.npz: not a complete .npz file"),
        ("data inspect empty --data.sise 3", 2, "options: --data.sise, 3 .* --data.size"),
        ("data inspect empty --sheet empty", 1, "cannot write empty: Is a directory"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_written(command: Command, words: str, code: int, message: str) -> None:
    Path("empty").mkdir()
    Path("empty/a.gif").write_bytes(b"")
    Path("cut.npz").write_bytes(b"PK")
    before = tree(Path())
    assert_told(command(words), code, message)
    assert tree(Path()) == before
