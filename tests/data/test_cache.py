import os
import time
from pathlib import Path

import pytest

from anystep.core.errors import DataError
from anystep.data.cache import cached


def test_an_entry_is_built_once(cache: Path):
    built = []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "x").write_text("content")

    assert cached("k", build) == cached("k", build)
    (entry,) = cache.iterdir()
    assert len(built) == 1 and (entry / "x").read_text() == "content"


def test_a_build_that_fails_leaves_nothing(cache: Path):
    def build(folder: Path) -> None:
        (folder / "half").write_text("...")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached("k", build)
    assert list(cache.iterdir()) == []


def test_what_killed_runs_left_is_removed_after_a_day_and_running_builds_are_not(cache: Path):
    for name, age in (("building-dead", 90_000), ("building-alive", 60)):
        (cache / name).mkdir(parents=True)
        (cache / name / "images.raw").write_text("...")
        then = time.time() - age
        os.utime(cache / name / "images.raw", (then, then))
        os.utime(cache / name, (time.time() - 90_000,) * 2)
    entry = cached("k", lambda folder: None)
    assert set(cache.iterdir()) == {cache / "building-alive", entry}


def test_of_two_builders_one_wins_and_both_go_on(cache: Path):
    def first(folder: Path) -> None:
        (folder / "x").write_text("first")

    def second(folder: Path) -> None:
        cached("k", first)
        (folder / "x").write_text("second")

    entry = cached("k", second)
    assert (entry / "x").read_text() == "first" and list(cache.iterdir()) == [entry]


def test_a_cache_that_cannot_be_written_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match=r"cannot write the cache.*\nset ANYSTEP_CACHE"):
        cached("k", lambda folder: None)


def test_a_full_disk_is_reported_and_leaves_nothing(cache: Path):
    def build(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="No space left on device"):
        cached("k", build)
    assert list(cache.iterdir()) == []


def test_keys_tell_divisions_of_the_same_text_apart(cache: Path):
    keys = (["ab", "c"], ["a", "bc"], ["abc"], ["ab", "c", ""], [1], ["1"], [None])
    assert len({cached(key, lambda folder: None) for key in keys}) == 7
