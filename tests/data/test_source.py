"""What sources share."""

from pathlib import Path

from anystep.data import Digits, Folder, Hub, Npz


def test_a_located_source_is_found_from_any_folder(tmp_path, monkeypatch):
    """A hub id is no path, unless something of that name is in the working folder."""
    (tmp_path / "x.npz").touch()
    (tmp_path / "here" / "images").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert Folder(path="images", size=8).located() == Folder(path=str(tmp_path / "here" / "images"), size=8)
    assert Npz(path="../x.npz").located().path == str(tmp_path / "x.npz")
    Path("here").mkdir()
    assert Hub(path="ylecun/mnist").located().path == "ylecun/mnist"
    assert Hub(path="here").located().path == str(tmp_path / "here" / "here")
    assert Digits().located() == Digits()
