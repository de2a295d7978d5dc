import os
from pathlib import Path

import numpy as np
import pytest

from anystep.core.errors import DataError
from anystep.data import Dataset, Folder
from anystep.data.images import decode_image


def everything(dataset: Dataset) -> np.ndarray:
    return dataset.read(np.arange(len(dataset)))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_sub_folders_are_classes_and_deeper_images_belong_to_them(folder, save):
    dog = save("dog/b.PNG")
    cats = [save("cat/a.png"), save("cat/deeper/z.webp", lossless=True), save("cat/y.JPG")]
    save("cat/.hidden.png")
    (folder / "cat" / "notes.txt").write_text("no image")
    (folder / "empty").mkdir()
    dataset = Folder(path=str(folder)).open()
    assert dataset.class_names == ("cat", "dog")
    np.testing.assert_array_equal(dataset.labels, [0, 0, 0, 1])
    expected = [decode_image(path, size=None, grey=False) for path in [*sorted(cats), dog]]
    np.testing.assert_array_equal(everything(dataset), expected)
    assert isinstance(dataset.stored.array, np.memmap) and dataset.stored.array.dtype == np.uint8


def test_images_directly_in_the_folder_have_no_class(folder, save):
    save("a.png")
    save("b.png")
    dataset = Folder(path=str(folder)).open()
    assert dataset.labels is None and dataset.num_classes is None and len(dataset) == 2


def test_images_both_in_the_folder_and_in_sub_folders_are_refused(folder, save):
    save("a.png")
    save("cat/b.png")
    with pytest.raises(DataError, match=r"both directly \(a.png\) and in sub-folders \(cat/\)"):
        Folder(path=str(folder)).open()
    dataset = Folder(path=str(folder), labels=False).open()
    assert len(dataset) == 2 and dataset.labels is None


def test_empty_missing_and_no_folders_are_told_apart(folder, tmp_path):
    with pytest.raises(DataError, match=r"no images in this folder; looked for .png, .jpg, .jpeg, .webp"):
        Folder(path=str(folder)).open()
    with pytest.raises(DataError, match="no such folder"):
        Folder(path=str(tmp_path / "nowhere")).open()
    (tmp_path / "file.png").write_text("")
    with pytest.raises(DataError, match="not a folder"):
        Folder(path=str(tmp_path / "file.png")).open()


@pytest.mark.parametrize("name", ["broken.jpg", "broken.png", "broken.webp"])
def test_a_truncated_image_stops_with_its_path_and_leaves_nothing(folder, save, cache, name):
    for k in range(3):
        save(f"x{k}.png")
    broken = save(name, shape=(32, 32, 3))
    truncate(broken)
    with pytest.raises(DataError, match=str(broken)):
        Folder(path=str(folder), size=8).open()
    assert list(cache.iterdir()) == []


def test_skipped_images_are_counted_their_rows_left_out_and_error_still_stops(folder, save, caplog):
    good = [save("a/0.png"), save("b/1.png"), save("b/3.png")]
    broken = save("b/2.jpg", shape=(32, 32, 3))
    truncate(broken)
    (folder / "a" / "9.webp").write_bytes(b"")
    for _ in range(2):  # decoded, then from the cache: said both times
        caplog.clear()
        dataset = Folder(path=str(folder), on_bad_image="skip").open()
        assert "skipped 2 of 5 images" in caplog.text and "9.webp" in caplog.text
        np.testing.assert_array_equal(dataset.labels, [0, 1, 1])
        np.testing.assert_array_equal(everything(dataset), [decode_image(p, size=None, grey=False) for p in good])
    with pytest.raises(DataError, match=r"9\.webp: no readable PNG, JPEG or WebP image\n.* --data\.on-bad-image skip"):
        Folder(path=str(folder)).open()


def test_nothing_but_bad_images_is_an_error_even_when_they_are_skipped(folder):
    (folder / "a.png").write_bytes(b"?")
    with pytest.raises(DataError, match=r"none of 1 images can be used; first .*a\.png"):
        Folder(path=str(folder), on_bad_image="skip").open()


def test_a_link_to_nowhere_is_a_bad_image(folder, save):
    save("a.png")
    (folder / "b.png").symlink_to(folder / "gone.png")
    with pytest.raises(DataError, match=r"b\.png: No such file"):
        Folder(path=str(folder)).open()


def test_links_to_folders_are_followed_but_not_round_in_circles(folder, save, tmp_path):
    save("../elsewhere/a.png")
    (folder / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(folder)
    dataset = Folder(path=str(folder)).open()
    assert dataset.class_names == ("cat",) and len(dataset) == 1


def test_the_first_image_rules_the_size(folder, save, caplog):
    first, other = save("a.png", shape=(6, 8, 3)), save("b.png", shape=(7, 8, 3))
    save("c.png", shape=(6, 8, 3))
    with pytest.raises(DataError, match=f"{other}: is 8x7 pixels, but {first} is 8x6 .--data.size"):
        Folder(path=str(folder)).open()
    assert len(Folder(path=str(folder), on_bad_image="skip").open()) == 2
    resized = Folder(path=str(folder), size=4).open()
    assert len(resized) == 3 and resized.stored.array.shape[1:] == (4, 4, 3)


def test_channels_are_grey_only_if_every_image_is(folder, save):
    save("a.png", shape=(8, 8))
    save("b.png", np.full((8, 8), 65535, np.uint16))
    assert Folder(path=str(folder)).open().stored.array.shape[1:] == (8, 8, 1)
    assert everything(Folder(path=str(folder)).open())[1].min() == 255
    assert Folder(path=str(folder), channels="rgb").open().stored.array.shape[1:] == (8, 8, 3)
    save("c.png", shape=(8, 8, 4))
    assert Folder(path=str(folder)).open().stored.array.shape[1:] == (8, 8, 3)
    assert Folder(path=str(folder), channels="grey").open().stored.array.shape[1:] == (8, 8, 1)


def test_the_cache_is_used_again_until_a_file_or_an_option_changes(folder, save, cache):
    path = save("a.png")
    save("b.png")
    source = Folder(path=str(folder))
    before = source.open().fingerprint
    (entry,) = cache.iterdir()
    stamp = (entry / "images.raw").stat()
    assert source.open().fingerprint == before
    assert list(cache.iterdir()) == [entry] and (entry / "images.raw").stat().st_mtime_ns == stamp.st_mtime_ns
    os.utime(path, ns=(1, 1))
    assert source.open().fingerprint == before and len(list(cache.iterdir())) == 2
    save("a.png")
    assert source.open().fingerprint != before
    save("c.png")
    assert len(source.open()) == 3
    Folder(path=str(folder), size=4).open()
    assert len(list(cache.iterdir())) == 5


def test_any_number_of_threads_gives_the_same_rows(folder, save):
    for k in range(150):  # more than are in flight at once
        save(f"{k % 3}/{k:03}.png", shape=(5, 5, 3))
    found = []
    for workers in (1, 4):
        os.utime(folder / "0" / "000.png", ns=(workers, workers))
        found.append(Folder(path=str(folder), workers=workers).open())
    assert found[0].fingerprint == found[1].fingerprint and len(found[0]) == 150


def test_a_cache_that_cannot_be_written_is_one_clear_message(folder, save, tmp_path, monkeypatch):
    save("a.png")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="ANYSTEP_CACHE"):
        Folder(path=str(folder)).open()


def test_a_damaged_cache_entry_names_the_folder_to_delete(folder, save, cache):
    save("a.png")
    Folder(path=str(folder)).open()
    (entry,) = cache.iterdir()
    truncate(entry / "images.raw")
    with pytest.raises(DataError, match=f"{entry} is damaged"):
        Folder(path=str(folder)).open()


def test_held_out_images_come_from_every_class(folder, save):
    for k in range(20):
        save(f"{'cat' if k < 15 else 'dog'}/{k}.png", shape=(4, 4, 3))
    train, heldout = (Folder(path=str(folder), heldout=0.2).open(part) for part in ("train", "heldout"))
    np.testing.assert_array_equal(np.bincount(heldout.labels), [3, 1])
    np.testing.assert_array_equal(np.bincount(train.labels), [12, 4])
