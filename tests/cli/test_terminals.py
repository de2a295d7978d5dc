"""Few or odd pictures train; narrow, plain and foreign terminals show what they can."""

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anystep.cli.main import main, print_anywhere
from anystep.cli.tables import print_table

from .conftest import Command


@pytest.mark.parametrize("count", [1, 5])
def test_fewer_pictures_than_a_batch_train_among_other_files_and_deeper_folders(
    command: Command, pixels: np.ndarray, count: int
) -> None:
    place = Path("pictures/class/deeper")
    place.mkdir(parents=True)
    (place / "notes.txt").write_text("")
    Path("pictures/Thumbs.db").write_text("")
    for n in range(count):
        Image.fromarray(pixels[n]).save(place / f"{n}.png")
    said = command("train folder-shortcut --data.path pictures DIT --out run")
    assert said.code == 0, said.err
    assert command("sample run --steps 1 4 --num 2").code == 0


def test_output_into_a_file_is_plain_lines(command: Command) -> None:
    """No bars, no colours, no carriage returns."""
    for words in ("train eight_gaussians-shortcut TINY --out run", "evaluate run --steps 1 --num 8"):
        said = command(words)
        assert said.code == 0 and not re.search(r"[\x1b\r\u2501]", said.out + said.err)


@pytest.mark.parametrize("wanted", [True, False])
def test_help_in_a_terminal_has_colours_unless_they_are_not_wanted(wanted: bool) -> None:
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "" if wanted else "1"}
    command = [sys.executable, "-m", "anystep", "report", "--help"]
    with subprocess.Popen(command, stdout=slave, env=environment) as process:
        os.close(slave)
        said = b""
        while part := read(master):
            said += part
        assert process.wait() == 0
    os.close(master)
    assert b"usage: anystep report" in re.sub(rb"\x1b\[[\d;]*m", b"", said) and (b"\x1b" in said) == wanted


def read(terminal: int) -> bytes:
    """Return what there is to read; nothing at the end, which Linux makes an error."""
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""


def test_a_terminal_of_40_columns_shows_what_is_done_and_the_time_left(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    said = command("train eight_gaussians-shortcut TINY --out run")
    plain = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", said.err)
    bars = [line for line in re.split(r"[\r\n]+", plain) if " / 320 images" in line]
    assert bars and all(re.search(r"/ 320 images +left +(--|\d\d):", line) for line in bars)
    assert max(map(len, bars)) <= 40


def test_the_recipes_can_be_read_in_40_columns(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    said = command("recipes")
    assert re.search(r"^ eight_gaussians +[\d,]+ *$", said.out, re.MULTILINE)
    assert re.search(r"^ progressive_distillation ", said.out, re.MULTILINE)


def test_a_narrow_table_breaks_its_heads_and_no_number(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "16")
    print_table({"steps": ["1", "128"], "frechet": ["53.852", "4.144"]}, numbers=["steps", "frechet"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[-3:-1]] == [["1", "53.852"], ["128", "4.144"]]
    pieces = [line.split() for line in lines[1:-4]]
    assert "".join(piece[-1] for piece in pieces) == "frechet" and len(pieces) > 1


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_terminal_without_unicode_drops_accents_and_keeps_the_bytes_of_file_names(errors: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors=errors)
    print_anywhere(stream)
    print("Fréchet \u2013 3 \u00d7 3 b\udcc3\udca4ume 猫", file=stream, flush=True)
    assert raw.getvalue() == b"Frechet - 3 x 3 b\xc3\xa4ume ?\n"


def test_the_command_prints_its_errors_in_a_terminal_without_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(raw, encoding="ascii", errors="strict", write_through=True))
    assert main(["zzz\u2013é"]) == 2
    assert raw.getvalue().startswith(b"anystep: unknown subcommand 'zzz-e'; subcommands: train")
