import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from anystep.core.random import Keys
from anystep.data import batch_indices, order

sizes = st.integers(1, 60)
seeds = st.integers(0, 2**40)


@given(size=sizes, batch=st.integers(1, 150), epochs=st.integers(1, 4), seed=seeds)
def test_every_row_comes_once_an_epoch_whatever_the_batch(size, batch, epochs, seed):
    steps = -(-epochs * size // batch)
    rows = np.concatenate([batch_indices(size, batch, n, Keys(seed)) for n in range(steps)])
    assert all(len(batch_indices(size, batch, n, Keys(seed))) == batch for n in range(steps))
    for epoch in rows[: epochs * size].reshape(epochs, size):
        assert sorted(epoch) == list(range(size))


@given(size=sizes, seed=seeds, steps=st.lists(st.integers(0, 500), min_size=1, max_size=12))
def test_a_batch_depends_on_seed_and_step_alone(size, seed, steps):
    in_order = {n: batch_indices(size, 7, n, Keys(seed)) for n in sorted(steps)}
    for n in steps:
        batch_indices(size, 7, n + 3, Keys(seed + 1))  # anything asked in between
        np.testing.assert_array_equal(batch_indices(size, 7, n, Keys(seed)), in_order[n])


@given(size=sizes, seed=seeds)
def test_the_sequence_does_not_depend_on_how_it_is_cut_into_batches(size, seed):
    ones = np.concatenate([batch_indices(size, 1, n, Keys(seed)) for n in range(24)])
    for batch in (2, 3, 8, 24):
        cut = np.concatenate([batch_indices(size, batch, n, Keys(seed)) for n in range(24 // batch)])
        np.testing.assert_array_equal(cut, ones)


def test_the_order_is_frozen_so_that_old_runs_resume():
    np.testing.assert_array_equal(batch_indices(10, 10, 0, Keys(0, 1)), [5, 3, 0, 4, 7, 6, 8, 2, 1, 9])
    np.testing.assert_array_equal(batch_indices(10, 10, 1, Keys(0, 1)), [8, 6, 4, 2, 5, 1, 7, 9, 3, 0])
    np.testing.assert_array_equal(batch_indices(10, 10, 0, Keys(0, 2)), [4, 5, 2, 7, 8, 6, 9, 1, 3, 0])
    words = np.array([1, 2, 3, 4, 5, 6, 7, 8], np.uint64)
    np.testing.assert_array_equal(order.computed_order(np.arange(11), 11, words), [7, 3, 1, 8, 4, 10, 5, 2, 9, 6, 0])


def test_epochs_and_seeds_differ():
    first, second = (batch_indices(1000, 1000, n, Keys(0)) for n in (0, 1))
    other = batch_indices(1000, 1000, 0, Keys(1))
    # Two random permutations of 1,000 agree in about one place.
    assert (first == second).sum() < 10
    assert (first == other).sum() < 10


def test_a_caller_cannot_spoil_the_order_for_the_next():
    batch_indices(10, 10, 0, Keys(5))[:] = 0
    assert sorted(batch_indices(10, 10, 0, Keys(5))) == list(range(10))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10, 97, 1000, 1023, 1025, 65_537])
def test_an_order_too_large_for_memory_is_a_permutation_too(size, monkeypatch):
    monkeypatch.setattr(order, "IN_MEMORY", 0)
    rows = np.concatenate([batch_indices(size, 13, n, Keys(7)) for n in range(-(-3 * size // 13))])
    epochs = rows[: 3 * size].reshape(3, size)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(size))
    if size > 10:
        assert (epochs[0] == epochs[1]).mean() < 0.1 and (epochs[1] == epochs[2]).mean() < 0.1
    np.testing.assert_array_equal(batch_indices(size, 13, 0, Keys(7)), rows[:13])


def test_a_computed_order_is_as_random_as_a_shuffled_one():
    """Counts of (place, row) in 16 x 16 equal parts, and of the differences between neighbours, are multinomial."""
    size, place = 2**16, np.arange(2**16)
    row = order.computed_order(place, size, Keys(0).words(0, "order", order.ROUNDS))
    table = np.histogram2d(place, row, bins=16, range=[[0, size]] * 2)[0]
    assert stats.chisquare(table.ravel(), ddof=30).pvalue > 1e-3
    steps = np.diff(row) % size
    assert stats.chisquare(np.histogram(steps, bins=64, range=(0, size))[0]).pvalue > 1e-3


def test_an_order_of_more_rows_than_memory_holds_is_computed_where_it_is_read():
    """10^12 rows: a batch costs what it holds. Of 10^5 random ones, no two are the same row."""
    rows = batch_indices(10**12, 100_000, 12_345, Keys(0))
    assert len(np.unique(rows)) == 100_000 and rows.min() >= 0 and rows.max() < 10**12
    assert stats.kstest(rows / 1e12, "uniform").pvalue > 1e-3


def test_runs_of_0_1_0_keep_their_order_however_long(monkeypatch):
    expected = batch_indices(1000, 64, 3, Keys(0, 1))
    monkeypatch.setattr(order, "IN_MEMORY", 0)
    np.testing.assert_array_equal(batch_indices(1000, 64, 3, Keys(0, 1)), expected)
