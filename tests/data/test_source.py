"""What sources share."""

from pathlib import Path

from anystep.data import Digits, Folder, Hub, Npz


def test_a_located_source_is_found_from_any_folder(tmp_path, monkeypatch):
    """A hub id is no path, unless something of that name lies here."""
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    assert Folder(path="pictures", size=8).located() == Folder(path=str(tmp_path / "pictures"), size=8)
    assert Npz(path="../x.npz").located().path == str(tmp_path.parent / "x.npz")
    assert Hub(path="ylecun/mnist").located().path == "ylecun/mnist"
    assert Hub(path="here").located().path == str(tmp_path / "here")
    assert Digits().located() == Digits()
