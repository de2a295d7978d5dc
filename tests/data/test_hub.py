import sys
from pathlib import Path

import numpy as np
import pytest

from anystep.core.errors import DataError
from anystep.data import Hub

datasets = pytest.importorskip("datasets", reason="the extra 'data' is not installed")
pa = pytest.importorskip("pyarrow")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def pixels(rng) -> np.ndarray:
    return rng.integers(256, size=(6, 5, 5, 3), dtype=np.uint8)


@pytest.fixture
def table(pixels, encoded):
    """Six PNGs as the hub stores them, with classes, integers and text as labels."""
    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.ClassLabel(names=["ant", "bee", "cat"]),
        number=datasets.Value("int32"),
        text=datasets.Value("string"),
        holes=datasets.Value("int64"),
    )
    columns = {
        "image": [{"bytes": encoded(image), "path": None} for image in pixels],
        "label": [0, 1, 2, 0, 1, 2],
        "number": [0, 1, 0, 1, 0, -1],
        "text": ["x", "y", "x", "y", "x", "y"],
        "holes": [0, 1, None, 0, 0, 0],
    }
    return datasets.Dataset.from_dict(columns, features=features)


def test_a_parquet_file_keeps_pixels_classes_and_names(table, pixels, tmp_path):
    path = tmp_path / "set.parquet"
    table.to_parquet(path)
    dataset = Hub(path=str(path)).open()
    np.testing.assert_array_equal(dataset.read(np.arange(6)), pixels)
    np.testing.assert_array_equal(dataset.labels, [0, 1, 2, 0, 1, 2])
    assert dataset.class_names == ("ant", "bee", "cat") and dataset.name == "set"
    text = Hub(path=str(path), label="text", size=4).open()
    assert text.class_names == ("x", "y") and text.stored.array.shape[1:] == (4, 4, 3)
    assert Hub(path=str(path), label=None).open().num_classes is None


def test_a_saved_data_set_and_a_folder_of_parquet_files_are_read(table, pixels, tmp_path):
    datasets.DatasetDict(train=table, test=table.select([2])).save_to_disk(tmp_path / "saved")
    np.testing.assert_array_equal(Hub(path=str(tmp_path / "saved")).open().read(np.arange(6)), pixels)
    assert len(Hub(path=str(tmp_path / "saved"), split="test").open()) == 1
    (tmp_path / "parts").mkdir()
    table.to_parquet(tmp_path / "parts" / "train-00000-of-00001.parquet")
    np.testing.assert_array_equal(Hub(path=str(tmp_path / "parts")).open().read(np.arange(6)), pixels)


def test_a_split_is_read_in_part_or_refused_never_replaced(table, pixels, tmp_path):
    table.to_parquet(tmp_path / "set.parquet")
    part = Hub(path=str(tmp_path / "set.parquet"), split="train[2:4]").open()
    np.testing.assert_array_equal(part.read(np.arange(2)), pixels[2:4])
    table.save_to_disk(tmp_path / "alone")
    assert len(Hub(path=str(tmp_path / "alone")).open()) == 6
    with pytest.raises(DataError, match="saved alone, as train"):
        Hub(path=str(tmp_path / "alone"), split="test").open()


def test_plain_binary_columns_are_images_too(pixels, encoded, tmp_path):
    from pyarrow import parquet

    columns = {"png": [encoded(image) for image in pixels], "y": [0, 1, 0, 1, 0, 1]}
    parquet.write_table(pa.table(columns), tmp_path / "plain.parquet")
    dataset = Hub(path=str(tmp_path / "plain.parquet"), image="png", label="y").open()
    np.testing.assert_array_equal(dataset.read(np.arange(6)), pixels)
    assert dataset.num_classes == 2


def test_decoded_once_and_again_when_the_file_changes(table, cache, tmp_path):
    path = tmp_path / "set.parquet"
    table.to_parquet(path)
    first = Hub(path=str(path)).open().fingerprint
    assert Hub(path=str(path)).open().fingerprint == first and len(list(cache.iterdir())) == 1
    table.select([0, 1, 2]).to_parquet(path)
    assert len(Hub(path=str(path)).open()) == 3 and len(list(cache.iterdir())) == 2


def test_bad_images_are_named_by_row_or_skipped(table, encoded, tmp_path, caplog):
    def spoil(row, index):
        return {"image": {"bytes": b"?", "path": None}} if index == 4 else row

    spoilt = table.cast_column("image", datasets.Image(decode=False)).map(spoil, with_indices=True)
    spoilt.cast_column("image", datasets.Image()).to_parquet(tmp_path / "set.parquet")
    with pytest.raises(DataError, match="image, row 4: no readable"):
        Hub(path=str(tmp_path / "set.parquet")).open()
    dataset = Hub(path=str(tmp_path / "set.parquet"), on_bad_image="skip").open()
    np.testing.assert_array_equal(dataset.labels, [0, 1, 2, 0, 2])
    assert "skipped 1 of 6" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "number"}, "number: row 5 is -1"),
        ({"label": "holes"}, "holes: row 2 has no label; without classes: --data.label None"),
        ({"label": "class"}, "no column 'class' .label.; the columns are image, label"),
        ({"image": "img"}, "no column 'img' .image."),
        ({"image": "text", "label": None}, "column 'text' contains"),
        ({"label": "image"}, "contains Image.*expected classes, integers or text"),
        ({"split": "train[:oops]"}, "cannot load"),
    ],
)
def test_columns_that_cannot_be_used_are_named(table, tmp_path, options, message):
    table.to_parquet(tmp_path / "set.parquet")
    with pytest.raises(DataError, match=message):
        Hub(path=str(tmp_path / "set.parquet"), **options).open()


def test_a_broken_table_is_said_once(tmp_path, caplog, capfd):
    (tmp_path / "set.parquet").write_text("nonsense")
    with pytest.raises(DataError, match=r"cannot load .*Parquet magic bytes not found"):
        Hub(path=str(tmp_path / "set.parquet")).open()
    assert (caplog.text, capfd.readouterr().err) == ("", "")


def test_a_hub_that_cannot_be_reached_is_one_clear_message():
    with pytest.raises(DataError, match=r"^hub: cannot load nobody/nothing \(train\): .*\ncheck the name") as caught:
        Hub(path="nobody/nothing").open()
    assert str(caught.value).count("\n") == 1


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install -e '\.\[data\]'"):
        Hub(path="nobody/nothing").open()
