"""An inspection agrees with what a run reads."""

import numpy as np
import pytest
from PIL import Image

from anystep.core.errors import DataError
from anystep.data import Folder, Npz
from anystep.data.inspection import inspect


@pytest.fixture
def mixed(folder, save):
    """Five good images of several sizes and modes, two bad ones, two other files."""
    save("cat/a.png", shape=(30, 40, 3))
    save("cat/b.jpg", shape=(8, 8, 3))
    save("cat/deep/c.webp", shape=(8, 8, 3), lossless=True)
    save("dog/d.PNG", shape=(8, 8, 4))
    save("dog/e.png", shape=(8, 8))
    (folder / "dog" / "f.png").write_bytes(b"no image")
    (folder / "dog" / "g.jpg").write_bytes((folder / "cat" / "b.jpg").read_bytes()[:100])
    (folder / "cat" / "notes.txt").write_text("")
    (folder / ".DS_Store").write_text("")
    return folder


def test_what_is_found_in_a_folder(mixed):
    found = inspect(Folder(path=str(mixed), size=8))
    assert found.count == 7
    assert found.sizes == {(8, 8): 4, (40, 30): 1}
    assert found.modes == {"RGB": 3, "RGBA": 1, "L": 1}
    assert found.classes == {"cat": 3, "dog": 2} and list(found.classes)[-1] == "dog"
    assert [where.rpartition("/")[2] for where, _ in found.unusable] == ["f.png", "g.jpg"]
    assert found.ignored == [".DS_Store", "cat/notes.txt"]


def test_a_run_gets_the_data_set_of_the_inspection_and_meets_its_problem(mixed):
    strict = Folder(path=str(mixed), size=8, heldout=0.4)
    found = inspect(strict)
    with pytest.raises(DataError) as error:
        strict.open()
    assert found.problem == str(error.value)
    lenient = Folder(path=str(mixed), size=8, heldout=0.4, on_bad_image="skip")
    assert inspect(lenient).problem is None
    for split, size in (("train", len(found.dataset)), ("heldout", found.heldout)):
        assert len(lenient.open(split)) == size
    assert lenient.open().fingerprint == found.dataset.fingerprint


def test_images_of_several_sizes_need_a_size(mixed):
    found = inspect(Folder(path=str(mixed)))
    assert found.problem is not None and "--data.size crops and resizes all" in found.problem
    assert len(found.unusable) == 6


def test_no_image_that_can_be_used_is_an_error(folder):
    (folder / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of 1 images can be used"):
        inspect(Folder(path=str(folder)))


def test_a_photo_that_is_turned_has_the_size_that_is_shown(folder):
    image = Image.new("RGB", (6, 4))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(folder / "a.jpg", exif=exif)
    found = inspect(Folder(path=str(folder)))
    assert found.sizes == {(4, 6): 1} and found.facts()["shape"] == [6, 4, 3]


def test_image_files_in_an_array_and_vectors(tmp_path, encoded, rng):
    files = [encoded(rng.integers(256, size=(8, 8, 3), dtype=np.uint8)) for _ in range(3)]
    offsets = np.cumsum([0, *map(len, files)])
    data = np.frombuffer(b"".join(files), np.uint8)
    np.savez(tmp_path / "x.npz", images=data, offsets=offsets, vectors=rng.normal(size=(10, 4)))
    found = inspect(Npz(path=str(tmp_path / "x.npz"), offsets="offsets", labels=None))
    assert (found.count, found.sizes, found.modes, found.classes) == (3, {(8, 8): 3}, {"RGB": 3}, {})
    found = inspect(Npz(path=str(tmp_path / "x.npz"), images="vectors", labels=None, heldout=0.2))
    assert (found.count, len(found.dataset), found.heldout, found.sizes) == (10, 8, 2, {})
