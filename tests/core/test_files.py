"""A file is there whole or not at all."""

import pytest

from anystep.core import files


def test_what_was_there_stays_when_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "file"
    files.write_text(path, "früher")
    assert path.read_bytes() == "früher".encode()

    def full(place):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_bytes(path, b"later")
    assert path.read_text(encoding="utf-8") == "früher"
    assert [file.name for file in path.parent.iterdir()] == ["file"]
