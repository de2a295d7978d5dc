import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anystep.core.errors import DataError
from anystep.data import Dataset, Normalization, split


def images(rng, n=20, side=4, channels=3):
    return rng.integers(256, size=(n, side, side, channels), dtype=np.uint8)


@given(mean=st.floats(0, 255), std=st.floats(1, 200))
def test_uint8_survives_encode_and_decode_bit_for_bit(mean, std):
    every = np.arange(256, dtype=np.uint8).reshape(1, 8, 8, 4)
    normalization = Normalization(mean, std, "image")
    np.testing.assert_array_equal(normalization.decode(normalization.encode(every)), every)


def test_encode_is_channels_first_and_unit_variance(rng):
    raw = images(rng, n=50)
    x = Dataset.from_arrays("noise", raw).normalization().encode(raw)
    assert x.dtype == torch.float32 and x.is_contiguous() and x.shape == (50, 3, 4, 4)
    torch.testing.assert_close(x.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(correction=0), torch.tensor(1.0), atol=1e-5, rtol=0)
    red = torch.from_numpy(raw[3, :, :, 0].astype(np.float32))
    torch.testing.assert_close(x[3, 0].argmax(), red.argmax())


def test_decode_clips_rounds_and_turns_nan_to_black():
    normalization = Normalization(100.0, 10.0, "image")
    x = torch.tensor([100.0, -100.0, torch.nan, 0.06]).reshape(1, 1, 2, 2)
    np.testing.assert_array_equal(normalization.decode(x).ravel(), [255, 0, 0, 101])


def test_vectors_round_trip(rng):
    raw = rng.normal(3, 5, (40, 2)).astype(np.float32)
    normalization = Dataset.from_arrays("points", raw).normalization()
    np.testing.assert_allclose(normalization.decode(normalization.encode(raw)), raw, atol=1e-5)


def test_encode_refuses_what_is_not_stored_data(rng):
    with pytest.raises(ValueError, match="image rows must be uint8 with 4 axes, got float32"):
        Normalization(0.0, 1.0, "image").encode(np.zeros((1, 2, 2, 1), np.float32))
    with pytest.raises(ValueError, match="std above 0"):
        Normalization(0.0, 0.0, "image")


def test_statistics_of_large_sets_are_taken_at_a_fixed_stride():
    raw = np.repeat(np.float32([[1.0], [3.0]]), 10_000, axis=0)  # sorted: the first 4,096 rows would all be 1
    normalization = Dataset.from_arrays("sorted", raw).normalization()
    assert (normalization.mean, normalization.std) == (2.0, 1.0)


def test_constant_and_empty_data_are_refused():
    with pytest.raises(DataError, match="every value is 7"):
        Dataset.from_arrays("flat", np.full((3, 2, 2, 1), 7, np.uint8)).normalization()
    with pytest.raises(DataError, match="empty"):
        Dataset.from_arrays("none", np.empty((0, 2, 2, 1), np.uint8))
    with pytest.raises(DataError, match="got float64"):
        Dataset.from_arrays("wide", np.zeros((3, 2)))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, -1, -2], "row 2 is -1, expected an integer from 0"),
        ([0, 1.5, 1, 0], "row 1 is 1.5"),
        ([0, 1, 2, np.nan], "row 3 is nan"),
        ([0, 1, 2, 10**9], "row 3 is 1000000000"),
        (["cat", "dog", "cat", "dog"], "must be integers, got <U3, row 0 is"),
        ([0, 1, 2], r"one label a row, shape [4], got [3]"),
        ([[0], [1], [2], [3]], r"one label a row, shape [4], got [4, 1]"),
    ],
)
def test_labels_that_are_no_classes_are_named_by_row_and_value(rng, labels, message):
    with pytest.raises(DataError, match=re.escape(message)):
        Dataset.from_arrays("set", images(rng, 4), np.array(labels))


def test_labels_beyond_the_class_names_are_refused(rng):
    with pytest.raises(DataError, match="row 3 is 2, expected an integer from 0 to 1"):
        Dataset.from_arrays("set", images(rng, 4), np.array([0, 1, 0, 2]), ("cat", "dog"))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.uint64])
def test_classes_are_counted_from_labels_of_any_number_type(rng, dtype):
    dataset = Dataset.from_arrays("set", images(rng, 4), np.array([0, 3, 1, 0], dtype))
    assert dataset.class_names == ("0", "1", "2", "3") and dataset.num_classes == 4
    assert dataset.labels is not None and dataset.labels.dtype == np.int64


@settings(max_examples=50)
@given(
    labels=st.none() | st.lists(st.integers(0, 5), min_size=10, max_size=200),
    heldout=st.floats(0.1, 0.9),
)
def test_a_split_is_disjoint_complete_stratified_and_the_same_again(labels, heldout):
    n = 64 if labels is None else len(labels)
    array = np.arange(n, dtype=np.float32)[:, None]
    dataset = Dataset.from_arrays("rows", array, None if labels is None else np.array(labels))
    train, held = split(dataset, heldout)
    rows = [part.read(np.arange(len(part)))[:, 0].astype(int) for part in (train, held)]
    assert sorted(np.concatenate(rows)) == list(range(n))
    assert abs(len(held) - heldout * n) <= 0.5 + 1e-6
    np.testing.assert_array_equal(split(dataset, heldout)[1].rows, held.rows)
    if labels is not None:
        for part, index in zip((train, held), rows, strict=True):
            np.testing.assert_array_equal(part.labels, np.array(labels)[index])
            assert part.class_names == dataset.class_names
        for k in set(labels):
            assert abs((held.labels == k).sum() - heldout * labels.count(k)) <= 1 + 1e-6


def test_a_split_that_leaves_a_part_empty_is_refused(rng):
    with pytest.raises(DataError, match="no rows held out"):
        split(Dataset.from_arrays("few", images(rng, 4)), 0.1)
    with pytest.raises(DataError, match="no rows to train on"):
        split(Dataset.from_arrays("few", images(rng, 4)), 0.9)


def test_the_fingerprint_is_of_content_not_of_storage(rng):
    raw, labels = images(rng, 6), np.array([0, 1, 0, 1, 0, 1])
    dataset = Dataset.from_arrays("a", raw, labels)
    reversed_twice = Dataset.from_arrays("b", raw[::-1].copy(), labels[::-1]).subset(np.arange(6)[::-1])
    assert reversed_twice.fingerprint == dataset.fingerprint
    changed = raw.copy()
    changed[5, 3, 3, 2] ^= 1
    others = [
        Dataset.from_arrays("a", changed, labels),
        Dataset.from_arrays("a", raw, 1 - labels),
        Dataset.from_arrays("a", raw),
        Dataset.from_arrays("a", raw.reshape(6, 2, 8, 3), labels),
        dataset.subset(np.arange(5)),
    ]
    assert len({dataset.fingerprint, *(other.fingerprint for other in others)}) == 6
