"""What codecs promise: a way back, unit variance, the same answer for the same draw, and statistics that stay."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anystep.codecs import CODECS, Auto, Pixels, Vectors, codec_from_json, codec_to_json
from anystep.core.errors import DataError
from anystep.core.random import Draw, Keys
from anystep.data import Dataset


def images(n=20, side=4, channels=3):
    return np.random.default_rng(0).integers(256, size=(n, side, side, channels), dtype=np.uint8)


def pixels(mean=127.5, std=127.5, size=(2, 2, 1), **options):
    return Pixels(**options).fitted(size=size, mean=mean, std=std)


def fitted(array):
    data = Dataset.from_arrays("set", array)
    return data.codec.fit(data)


@settings(deadline=None)
@given(mean=st.floats(0, 255), std=st.floats(1, 200))
def test_uint8_survives_encode_and_decode_bit_for_bit(mean, std):
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 8, 8, 4)
    codec = pixels(mean, std, (8, 8, 4))
    x = codec.encode(every, None)
    assert torch.equal(codec.decode(x), every)
    assert codec.decode(x, rounded=False).dtype == torch.float32
    assert float((codec.decode(x, rounded=False) - every).abs().max()) < 1e-3


def test_pixels_are_channels_first_with_unit_variance():
    raw = images(n=50)
    codec = fitted(raw)
    x = codec.encode(torch.from_numpy(raw), None)
    assert x.dtype == torch.float32 and x.is_contiguous() and x.shape == (50, *codec.shape()) == (50, 3, 4, 4)
    torch.testing.assert_close(x.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(correction=0), torch.tensor(1.0), atol=1e-5, rtol=0)
    red = torch.from_numpy(raw[3, :, :, 0].astype(np.float32))
    torch.testing.assert_close(x[3, 0].argmax(), red.argmax())


def test_decoded_pixels_are_clipped_rounded_and_black_where_not_a_number():
    x = torch.tensor([100.0, -100.0, torch.nan, 0.06]).reshape(1, 1, 2, 2)
    assert pixels(100.0, 10.0).decode(x).ravel().tolist() == [255, 0, 0, 101]


def test_mirroring_is_drawn_for_the_global_batch_and_only_in_training():
    """Half of the rows; the parts of a batch are mirrored as the whole is; without a draw none is."""
    rows = torch.from_numpy(images(n=256))
    codec = Pixels(mirror=True).fitted(size=(4, 4, 3), mean=100.0, std=50.0)
    plain = codec.encode(rows, None)
    assert torch.equal(plain, pixels(100.0, 50.0, (4, 4, 3)).encode(rows, Draw(Keys(0), 3, 256, slice(0, 256))))
    whole = codec.encode(rows, Draw(Keys(0), 3, 256, slice(0, 256)))
    mirrored = (whole == plain.flip(-1)).flatten(1).all(1)
    assert torch.equal(whole, torch.where(mirrored[:, None, None, None], plain.flip(-1), plain))
    assert 100 < int(mirrored.sum()) < 156
    parts = [codec.encode(rows[n : n + 64], Draw(Keys(0), 3, 256, slice(n, n + 64))) for n in range(0, 256, 64)]
    assert torch.equal(torch.cat(parts), whole)


def test_vectors_round_trip():
    raw = np.random.default_rng(0).normal(3, 5, (40, 2)).astype(np.float32)
    codec, rows = fitted(raw), torch.from_numpy(raw)
    torch.testing.assert_close(codec.decode(codec.encode(rows, None)), rows, atol=1e-5, rtol=0)


def test_rows_of_another_kind_are_rejected():
    with pytest.raises(ValueError, match=r"pixels expects uint8 images \[n, H, W, C\] .*, got float32 \[1, 2, 2, 1\]"):
        pixels().encode(torch.zeros(1, 2, 2, 1), None)
    vectors = Vectors().fitted(mean=(0.0, 0.0), std=(1.0, 1.0))
    with pytest.raises(ValueError, match=r"codec vectors expects float32 vectors \[n, 2\], got float32 \[4, 3\]"):
        vectors.encode(torch.zeros(4, 3), None)
    with pytest.raises(DataError, match="set: codec vectors expects float32 vectors"):
        Vectors().fit(Dataset.from_arrays("set", images()))


@pytest.mark.parametrize(
    ("codec", "statistics", "message"),
    [
        (Pixels(), {"size": (2, 2, 1), "mean": 0.0, "std": 0.0}, "std above 0"),
        (Pixels(), {"size": (2, 2, 1), "mean": float("nan"), "std": 1.0}, "finite mean"),
        (Pixels(), {"size": (2, 2), "mean": 0.0, "std": 1.0}, "a height, a width and channels"),
        (Pixels(), {"mean": 0.0, "std": 1.0}, "codec pixels needs the statistics mean, size, std, got mean, std"),
        (Vectors(), {"mean": (0.0, 1.0), "std": (1.0,)}, "a mean and a std for each column, got 2 and 1"),
        (Vectors(), {"mean": (0.0, 1.0), "std": (1.0, -1.0)}, "in column 1"),
        (Vectors(), {"mean": (0.0,), "std": (0.0,)}, "a column with a std above 0, got none"),
    ],
)
def test_statistics_that_cannot_be_used_are_rejected(codec, statistics, message):
    with pytest.raises(ValueError, match=message):
        codec.fitted(**statistics)


def test_statistics_of_large_sets_are_taken_at_a_fixed_stride():
    raw = np.repeat(np.float32([[1.0], [3.0]]), 10_000, axis=0)  # sorted: the first 4,096 rows would all be 1
    codec = fitted(raw)
    assert (codec.mean, codec.std) == ((2.0,), (1.0,))


def test_constant_data_is_rejected():
    with pytest.raises(DataError, match="every value is 7"):
        fitted(np.full((3, 2, 2, 1), 7, np.uint8))
    with pytest.raises(DataError, match="set: every column is constant, there is nothing to learn"):
        fitted(np.tile(np.float32([0.1, -3.0]), (10, 1)))
    with pytest.raises(DataError, match="set: column 1 has values that are not finite"):
        fitted(np.float32([[1, 2], [3, np.nan]]))


def mixed(n=6000):
    """Two places in pixels, an angle, a constant that binary fractions cannot hold, and 1e-30 of something."""
    rng = np.random.default_rng(0)
    columns = [256 + 100 * rng.normal(size=n), 200 + 90 * rng.normal(size=n), 1.8 * rng.normal(size=n)]
    return np.stack([*columns, np.full(n, 0.1), 1e-30 * rng.normal(size=n)], 1).astype(np.float32)


def test_every_column_has_unit_deviation_whatever_its_scale():
    """One scalar for all would give the angle a deviation of 0.018 among those of about 1."""
    raw = mixed()
    x = fitted(raw).encode(torch.from_numpy(raw), None)
    varied = x[:, [0, 1, 2, 4]].double()
    torch.testing.assert_close(varied.mean(0), torch.zeros(4).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(varied.std(0), torch.ones(4).double(), atol=0.02, rtol=0)
    values = raw[np.arange(4096) * 6000 // 4096].astype(np.float64)
    assert np.allclose(fitted(raw).mean, values.mean(0)) and np.allclose(fitted(raw).std, values.std(0))


def test_a_constant_column_is_encoded_as_0_and_decoded_to_its_value_exactly():
    raw = torch.from_numpy(mixed())
    codec = fitted(mixed())
    assert codec.encode(raw, None)[:, 3].abs().max() == 0
    decoded = codec.decode(torch.randn(50, 5))
    assert (decoded[:, 3] == raw[0, 3]).all() and decoded.isfinite().all()
    torch.testing.assert_close(codec.decode(codec.encode(raw, None)), raw, rtol=1e-5, atol=1e-4)
    assert [note.rpartition(": ")[2] for note in codec.notes()] == ["3"]
    many = np.concatenate([mixed(9)[:, :1], np.ones((9, 12), np.float32)], 1)
    assert fitted(many).notes()[0].endswith(": 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more")
    assert fitted(mixed()[:, :3]).notes() == ()


@pytest.mark.parametrize("codec", [pixels(mirror=True), Vectors().fitted(mean=(0.1, 2.0), std=(1 / 3, 1e-9))])
def test_a_fitted_codec_survives_json_exactly(codec):
    again = codec_from_json(json.loads(json.dumps(codec_to_json(codec))))
    assert (again, again.statistics()) == (codec, codec.statistics())
    unfitted = type(codec)() if isinstance(codec, Vectors) else Pixels(mirror=True)
    assert unfitted == codec and unfitted.statistics() == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "latents"}, "codec.name must be one of auto, pixels, vectors, got 'latents'"),
        (
            {"name": "pixels", "size": [1, 1, 1], "mean": 0, "std": 1, "gamma": 2},
            "codec pixels needs the statistics mean, size, std, got gamma, mean, size, std",
        ),
        ({"name": "vectors", "mean": [0.0]}, "codec vectors needs the statistics mean, std, got mean"),
    ],
)
def test_an_unknown_codec_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        codec_from_json(values)


def test_a_user_cannot_set_statistics():
    with pytest.raises(TypeError, match="mean"):
        Pixels(mean=3.0)  # type: ignore[call-arg]


def test_auto_is_the_data_sets_own_and_nothing_else():
    with pytest.raises(TypeError, match="stands for that of the data set"):
        Auto().shape()
    assert all(codec.name == name for name, codec in CODECS.items())
