"""Features: pixels as they are while they are few, averages of squares of them when they are many."""

import numpy as np
import pytest
import torch

from anystep.data.base import Dataset
from anystep.evaluation.features.base import FeatureSpace, extract
from anystep.evaluation.features.data import Normalised, data_space


def features(space, raw):
    """The features of one batch."""
    return extract({"data": space}, {True: raw})["data"].values


def test_features_that_are_not_finite_are_an_error():
    space = FeatureSpace("broken", lambda raw: {"features": np.array([[0.0, 1.0], [np.nan, 1.0], [np.inf, np.nan]])})
    with pytest.raises(ValueError, match="features 'broken' must be finite, but those of 2 of 3 are not"):
        features(space, None)


def images(height, width, channels):
    rng = np.random.default_rng(0)
    return Dataset.from_arrays("noise", rng.integers(256, size=(3, height, width, channels), dtype=np.uint8))


@pytest.mark.parametrize(
    ("size", "resize"),
    [
        ((32, 32, 3), "none"),
        ((64, 64, 1), "none"),
        ((64, 64, 3), "area 64x64 to 32x32"),
        ((256, 256, 3), "area 256x256 to 32x32"),
        ((96, 48, 3), "area 96x48 to 48x24"),
        ((66, 66, 1), "area 66x66 to 33x33"),
    ],
)
def test_the_largest_size_with_at_most_4096_features_that_divides_the_side(size, resize):
    data = images(*size)
    codec = data.codec.fit(data)
    space = data_space(codec, codec.shape(), torch.device("cpu"))
    assert space.resize == resize
    assert space.name == ("raw_pixels" if resize == "none" else "averaged_pixels")
    assert features(space, data.read(np.arange(1))).shape[1] <= 4096


def test_an_averaged_pixel_is_the_mean_of_its_square():
    data = images(64, 64, 3)
    raw, codec = data.read(np.arange(3)), data.codec.fit(data)
    whole = Normalised(codec)(raw)["features"].reshape(3, 3, 32, 2, 32, 2)
    found = features(data_space(codec, codec.shape(), torch.device("cpu")), raw).reshape(3, 3, 32, 32)
    np.testing.assert_allclose(found, whole.mean((3, 5)), atol=1e-6)


def test_vectors_are_never_averaged():
    data = Dataset.from_arrays("wide", np.random.default_rng(0).standard_normal((3, 5000)).astype(np.float32))
    codec = data.codec.fit(data)
    space = data_space(codec, codec.shape(), torch.device("cpu"))
    assert (space.name, space.resize) == ("columns", "none")
    assert features(space, data.read(np.arange(3))).shape == (3, 5000)
