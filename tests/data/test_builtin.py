import tomllib
from pathlib import Path

import numpy as np
import pytest

from anystep.core.errors import DataError
from anystep.data import SOURCES, Checkerboard, Digits, EightGaussians, Emoji, TwoMoons
from anystep.data.emoji import FILE


def everything(dataset):
    return dataset.read(np.arange(len(dataset))).numpy()


def test_the_registry_names_each_source_by_its_name():
    points = ["two_moons", "eight_gaussians", "checkerboard"]
    assert list(SOURCES) == ["digits", "emoji", *points, "folder", "npz", "hub"]
    assert all(source.name == name for name, source in SOURCES.items())


def test_digits_are_scikit_learns_and_the_parts_make_the_whole():
    from sklearn.datasets import load_digits

    train, heldout, whole = Digits().open(), Digits().open("heldout"), Digits(heldout=0).open()
    assert (len(train), len(heldout), len(whole)) == (1438, 359, 1797)
    assert whole.codec.fit(whole).shape() == (1, 8, 8) and whole.num_classes == 10
    original = load_digits()
    np.testing.assert_array_equal(np.rint(everything(whole)[..., 0] / 255 * 16), original.images)
    np.testing.assert_array_equal(whole.labels, original.target)
    counts = np.bincount(heldout.labels, minlength=10) / np.bincount(whole.labels)
    np.testing.assert_allclose(counts, 0.2, atol=0.01)
    seen = {row.tobytes() for row in everything(train)}
    assert sum(row.tobytes() in seen for row in everything(heldout)) == 0


def test_digits_and_their_split_are_frozen_so_that_scores_stay_comparable():
    assert Digits(heldout=0).open().fingerprint.startswith("4d6dd4e811720560")
    assert Digits().open().fingerprint.startswith("68c17c017f167426")


def test_digits_without_heldout_rows_say_so():
    with pytest.raises(DataError, match=r"no examples are held out; --data\.heldout 0\.1"):
        Digits(heldout=0).open("heldout")
    with pytest.raises(ValueError, match="split must be one of train, heldout, got 'test'"):
        Digits().open("test")


def test_emoji_are_in_the_package_with_their_classes_and_licence():
    train, heldout, whole = Emoji().open(), Emoji().open("heldout"), Emoji(heldout=0).open()
    assert (len(train), len(heldout), len(whole)) == (1525, 381, 1906)
    assert whole.codec.fit(whole).shape() == (3, 32, 32)
    counts = dict(zip(whole.class_names, np.bincount(whole.labels).tolist(), strict=True))
    assert counts["Smileys & Emotion"] == 169 and counts["Flags"] == 270 and len(counts) == 9
    np.testing.assert_allclose(np.bincount(heldout.labels) / np.bincount(whole.labels), 0.2, atol=0.01)
    assert everything(whole)[:, 0, 0].mean() > 200  # corners are white
    notice = FILE.with_name("emoji-NOTICE.md").read_text()
    assert "Apache License 2.0" in notice and "emoji-datasource-google` 16.0.0" in notice
    assert FILE.stat().st_size < 2.1e6
    packed = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert f"{FILE.parent.relative_to(FILE.parents[2])}/*" in packed["package-data"]["anystep"]


def test_emoji_and_their_split_are_frozen_so_that_scores_stay_comparable():
    assert Emoji(heldout=0).open().fingerprint.startswith("f9a4b5f4528afcaa")
    assert Emoji().open().fingerprint.startswith("c4f46561d52c562d")


def test_a_package_without_the_emoji_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("anystep.data.emoji.FILE", tmp_path / "emoji.npz")
    with pytest.raises(DataError, match=r"emoji\.npz: cannot be read \(No such file.*install anystep again"):
        Emoji().open()
    np.savez(tmp_path / "emoji.npz", images=np.array([None]), labels=[0], classes=["a"])
    with pytest.raises(DataError, match="allow_pickle=False"):
        Emoji().open()


def test_eight_gaussians_have_the_moments_they_are_defined_by():
    dataset = EightGaussians(labels=True).open()
    points = everything(dataset).astype(np.float64)
    for k in range(8):
        cluster = points[dataset.labels == k]
        centre = 2 * np.exp(1j * np.pi * k / 4)
        np.testing.assert_allclose(cluster.mean(0), [centre.real, centre.imag], atol=0.015)
        np.testing.assert_allclose(cluster.std(0), 0.1, atol=0.01)
        assert abs(len(cluster) / len(points) - 1 / 8) < 0.01


def test_the_checkerboard_fills_exactly_half_of_the_squares():
    points = everything(Checkerboard().open())
    assert np.abs(points).max() <= 4
    column, row = ((points + 4) // 2).clip(0, 3).astype(int).T
    assert ((column + row) % 2 == 0).all()
    np.testing.assert_allclose(
        np.bincount(4 * row + column, minlength=16)[[0, 2, 5, 7]] / len(points), 1 / 8, atol=0.01
    )


def test_two_moons_lie_on_their_half_circles():
    dataset = TwoMoons(labels=True).open()
    points = everything(dataset)
    for moon, centre in ((0, (-1.0, -0.5)), (1, (1.0, 0.5))):
        away = points[dataset.labels == moon] - np.float32(centre)
        assert abs(np.linalg.norm(away, axis=1).mean() - 2) < 0.02
        assert ((away[:, 1] > -0.8) if moon == 0 else (away[:, 1] < 0.8)).all()


@pytest.mark.parametrize("source", [TwoMoons, EightGaussians, Checkerboard])
def test_points_are_the_same_for_a_seed_and_others_are_held_out(source):
    def draw(seed, split="train"):
        return source(num=500, seed=seed).open(split)

    assert draw(0).fingerprint == draw(0).fingerprint
    assert len({draw(0).fingerprint, draw(1).fingerprint, draw(0, "heldout").fingerprint}) == 3
    assert draw(0).labels is None and draw(0).stored.array.shape[1:] == (2,) and len(draw(0, "heldout")) == 500


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digits", {"heldout": 1.0}, r"data.heldout must be in \[0, 1\), got 1.0"),
        ("emoji", {"heldout": -0.1}, r"data.heldout must be in \[0, 1\), got -0.1"),
        ("two_moons", {"num": 0}, "data.num must be at least 1, got 0"),
        ("checkerboard", {"seed": -1}, "data.seed must be at least 0, got -1"),
        ("folder", {"path": ""}, "data.path must be text that is not empty, got ''"),
        ("folder", {"path": "x", "size": 0}, "data.size must be at least 1, got 0"),
        ("folder", {"path": "x", "channels": "gray"}, "data.channels must be one of auto, grey, rgb, got 'gray'"),
        ("folder", {"path": "x", "on_bad_image": "ignore"}, "data.on_bad_image must be one of error, skip"),
        ("folder", {"path": "x", "workers": -1}, "data.workers must be at least 0, got -1"),
        ("npz", {"path": "x", "labels": None, "classes": "names"}, "data.classes must be None without labels"),
        ("hub", {"path": "x", "heldout": -0.5}, r"data.heldout must be in \[0, 1\), got -0.5"),
    ],
)
def test_options_out_of_range_are_named_with_the_value_and_what_is_right(name, options, message):
    with pytest.raises(ValueError, match=message):
        SOURCES[name](**options)
