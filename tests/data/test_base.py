import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anystep.codecs import Pixels, Vectors
from anystep.core.errors import DataError
from anystep.data import Dataset

from .conftest import both


def images(rng, n=20, side=4, channels=3):
    return rng.integers(256, size=(n, side, side, channels), dtype=np.uint8)


def test_empty_data_and_arrays_without_a_usual_codec_are_refused():
    with pytest.raises(DataError, match="empty"):
        Dataset.from_arrays("none", np.empty((0, 2, 2, 1), np.uint8))
    with pytest.raises(DataError, match="got float64"):
        Dataset.from_arrays("wide", np.zeros((3, 2)))


def test_a_function_of_the_row_number_is_a_data_set_equal_to_its_array(rng):
    """Same rows, split and fingerprint, whether an array or a function stores them."""
    raw, labels = images(rng, 40), np.arange(40) % 4
    array = Dataset.from_arrays("array", raw, labels)
    function = Dataset.from_function("function", 40, lambda number: raw[number], codec=Pixels(), labels=labels)
    assert array.codec == function.codec == Pixels()
    assert array.fingerprint == function.fingerprint
    for one, other in zip(both(array, 0.25), both(function, 0.25), strict=True):
        assert torch.equal(one.read(np.arange(len(one))), other.read(np.arange(len(other))))
        assert one.fingerprint == other.fingerprint


def test_a_given_fingerprint_stands_for_rows_that_are_not_read(rng):
    """A subset's is that of the whole with its row numbers, so that opening a large set reads nothing."""

    def never(number):
        raise AssertionError("a row was read")

    def make(fingerprint, labels=None):
        return Dataset.from_function("big", 10**6, never, codec=Vectors(), fingerprint=fingerprint, labels=labels)

    whole = make("v1")
    parts = [whole, make("v2"), make("v1", np.zeros(10**6, int)), *both(whole, 0.1), whole.subset(np.arange(10**6))]
    assert len({part.fingerprint for part in parts}) == len(parts)
    assert make("v1").fingerprint == whole.fingerprint
    assert both(make("v1"), 0.1)[1].fingerprint == both(whole, 0.1)[1].fingerprint


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, -1, -2], "row 2 is -1, expected an integer from 0"),
        ([0, 1.5, 1, 0], "row 1 is 1.5"),
        ([0, 1, 2, np.nan], "row 3 is nan"),
        ([0, 1, 2, 10**9], "row 3 is 1000000000"),
        (["cat", "dog", "cat", "dog"], "must be integers, got <U3, row 0 is"),
        ([0, 1, 2], r"one label per example, shape [4], got [3]"),
        ([[0], [1], [2], [3]], r"one label per example, shape [4], got [4, 1]"),
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
    train, held = both(dataset, heldout)
    rows = [part.read(np.arange(len(part))).numpy()[:, 0].astype(int) for part in (train, held)]
    assert sorted(np.concatenate(rows)) == list(range(n))
    assert abs(len(held) - heldout * n) <= 0.5 + 1e-6
    np.testing.assert_array_equal(both(dataset, heldout)[1].rows, held.rows)
    if labels is not None:
        for part, index in zip((train, held), rows, strict=True):
            np.testing.assert_array_equal(part.labels, np.array(labels)[index])
            assert part.class_names == dataset.class_names
        for k in set(labels):
            assert abs((held.labels == k).sum() - heldout * labels.count(k)) <= 1 + 1e-6


def test_a_split_that_leaves_a_part_empty_is_refused(rng):
    with pytest.raises(DataError, match="no examples held out"):
        both(Dataset.from_arrays("few", images(rng, 4)), 0.1)
    with pytest.raises(DataError, match="no examples to train on"):
        both(Dataset.from_arrays("few", images(rng, 4)), 0.9)


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
