import re
from pathlib import Path

import numpy as np
import pytest

from anystep.codecs import Vectors
from anystep.core.errors import DataError
from anystep.data import Npz

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def shared(name: str) -> str:
    path = SHARED / name / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"the data set {name} is not beside the repository, at ../shared/data")
    return str(path)


@pytest.fixture
def write(tmp_path: Path):
    def save(**arrays) -> str:
        path = tmp_path / "set.npz"
        np.savez(path, **arrays)
        return str(path)

    return save


def test_pixels_and_labels_are_taken_as_they_are(write, rng, cache):
    grey, rgb = (rng.integers(256, size=shape, dtype=np.uint8) for shape in ((4, 6, 6), (4, 6, 6, 3)))
    path = write(grey=grey, rgb=rgb, labels=[0, 2, 1, 2], names=["ant", "bee", "cat"])
    np.testing.assert_array_equal(Npz(path=path, images="grey").open().stored.array[..., 0], grey)
    dataset = Npz(path=path, images="rgb", classes="names").open()
    np.testing.assert_array_equal(dataset.stored.array, rgb)
    np.testing.assert_array_equal(dataset.labels, [0, 2, 1, 2])
    assert dataset.class_names == ("ant", "bee", "cat")
    assert not cache.exists()


def test_our_own_samples_are_read(write, rng):
    path = write(samples=rng.integers(256, size=(4, 8, 8, 1), dtype=np.uint8), labels=np.arange(4))
    assert Npz(path=path, images="samples").open().num_classes == 4


def test_size_and_channels_change_pixels_in_memory_too(write, rng):
    clear = np.zeros((3, 8, 12, 4), np.uint8)
    path = write(images=clear, other=rng.integers(256, size=(3, 8, 8), dtype=np.uint8))
    assert (Npz(path=path, labels=None, size=4).open().stored.array == 255).all()
    assert Npz(path=path, labels=None).open().stored.array.shape[1:] == (8, 12, 3)
    assert Npz(path=path, labels=None, images="other", channels="rgb").open().stored.array.shape[1:] == (8, 8, 3)


def test_encoded_images_lie_end_to_end(write, rng, encoded, caplog):
    pixels = rng.integers(256, size=(3, 8, 8, 3), dtype=np.uint8)
    files = [encoded(pixels[0]), encoded(pixels[1], "WEBP", lossless=True), b"broken", encoded(pixels[2])]
    data = np.frombuffer(b"".join(files), np.uint8)
    offsets = np.cumsum([0, *map(len, files)])
    path = write(images=data, offsets=offsets, labels=[0, 1, 3, 2])
    dataset = Npz(path=path, offsets="offsets", on_bad_image="skip").open()
    np.testing.assert_array_equal(dataset.stored.array, pixels)
    np.testing.assert_array_equal(dataset.labels, [0, 1, 2])
    assert dataset.num_classes == 4 and "skipped 1 of 4" in caplog.text
    with pytest.raises(DataError, match=r"set\.npz, images, row 2: no readable"):
        Npz(path=path, offsets="offsets").open()


def test_vectors_are_finite_float32(write, rng):
    path = write(images=rng.normal(size=(5, 3)), labels=np.zeros(5, int))
    dataset = Npz(path=path).open()
    assert dataset.codec == Vectors() and dataset.stored.array.dtype == np.float32
    assert dataset.codec.fit(dataset).shape() == (3,)
    with pytest.raises(DataError, match=r"contains vectors; data\.size and data\.channels are for images"):
        Npz(path=path, size=8).open()


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"pictures": np.zeros(3)}, {}, "no array 'images'; the file contains pictures"),
        ({"images": np.zeros((2, 4, 4), np.float32)}, {"labels": None}, "expected uint8 images [n, H, W] or"),
        (
            {"images": np.zeros((2, 3, 8, 8), np.uint8)},
            {"labels": None},
            "1 to 4 channels last",
        ),
        ({"images": np.zeros((0, 8, 8), np.uint8)}, {"labels": None}, "empty"),
        ({"images": np.zeros(8, np.uint8)}, {"labels": None}, "expected uint8 images [n, H, W]"),
        ({"images": np.array([[1.0, 2.0], [3.0, np.inf]])}, {"labels": None}, "row 1 has inf in column 1"),
        ({"images": np.array([[1.0, 2.0], [1e300, 0.0]])}, {"labels": None}, "row 1 has 1e+300 in column 0"),
        ({"images": np.zeros((3, 2, 2), np.uint8), "labels": np.array([0, 1, -1])}, {}, "labels: row 2 is -1"),
        (
            {"images": np.zeros((3, 2, 2), np.uint8), "labels": np.arange(2)},
            {},
            "label per example, shape [3], got [2]",
        ),
        ({"images": np.zeros(2, np.uint8), "o": np.array([0, 2, 1])}, {"labels": None, "offsets": "o"}, "row 1 would"),
        ({"images": np.zeros(2, np.uint8), "o": np.array([0, 3])}, {"labels": None, "offsets": "o"}, "row 0 would be"),
        ({"images": np.array([object()])}, {"labels": None}, "images: cannot be read (Object arrays"),
    ],
)
def test_arrays_that_cannot_be_used_are_named(write, arrays, options, message):
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        Npz(path=write(**arrays), **options).open()
    assert str(caught.value).count("\n") <= 1


def test_missing_truncated_and_foreign_files_are_named(write, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        Npz(path=str(tmp_path / "gone.npz")).open()
    path = Path(write(images=np.zeros((50, 8, 8), np.uint8)))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"not a complete \.npz file"):
        Npz(path=str(path)).open()


def test_fashion_mnist_is_read_as_published():
    source = Npz(path=shared("fashion_mnist"), images="test_images", labels="test_labels", classes="classes")
    dataset = source.open()
    assert len(dataset) == 10_000 and dataset.codec.fit(dataset).shape() == (1, 28, 28)
    np.testing.assert_array_equal(np.bincount(dataset.labels), 1000)
    assert dataset.class_names[0].startswith("T-shirt")


def test_imagenette_is_decoded_to_32_pixels():
    dataset = Npz(
        path=shared("imagenette64"), images="val_jpeg", offsets="val_offsets", labels="val_labels", size=32
    ).open()
    codec = dataset.codec.fit(dataset)
    assert len(dataset) == 3925 and codec.shape() == (3, 32, 32) and dataset.num_classes == 10
    # ImageNet's mean is about 0.45 and its standard deviation, all channels together, about 0.28 at this size.
    assert abs(codec.mean / 255 - 0.45) < 0.03 and abs(codec.std / 255 - 0.27) < 0.03
