import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anystep.data import batch_indices

sizes = st.integers(1, 60)
seeds = st.integers(0, 2**40)


@given(size=sizes, batch=st.integers(1, 150), epochs=st.integers(1, 4), seed=seeds)
def test_every_row_comes_once_an_epoch_whatever_the_batch(size, batch, epochs, seed):
    steps = -(-epochs * size // batch)
    rows = np.concatenate([batch_indices(size, batch, n, seed) for n in range(steps)])
    assert all(len(batch_indices(size, batch, n, seed)) == batch for n in range(steps))
    for epoch in rows[: epochs * size].reshape(epochs, size):
        assert sorted(epoch) == list(range(size))


@given(size=sizes, seed=seeds, steps=st.lists(st.integers(0, 500), min_size=1, max_size=12))
def test_a_batch_depends_on_seed_and_step_alone(size, seed, steps):
    in_order = {n: batch_indices(size, 7, n, seed) for n in sorted(steps)}
    for n in steps:
        batch_indices(size, 7, n + 3, seed + 1)  # anything asked in between
        np.testing.assert_array_equal(batch_indices(size, 7, n, seed), in_order[n])


@given(size=sizes, seed=seeds)
def test_the_sequence_does_not_depend_on_how_it_is_cut_into_batches(size, seed):
    ones = np.concatenate([batch_indices(size, 1, n, seed) for n in range(24)])
    for batch in (2, 3, 8, 24):
        cut = np.concatenate([batch_indices(size, batch, n, seed) for n in range(24 // batch)])
        np.testing.assert_array_equal(cut, ones)


def test_the_order_is_frozen_so_that_old_runs_resume():
    np.testing.assert_array_equal(batch_indices(10, 10, 0, seed=0), [5, 3, 0, 4, 7, 6, 8, 2, 1, 9])
    np.testing.assert_array_equal(batch_indices(10, 10, 1, seed=0), [8, 6, 4, 2, 5, 1, 7, 9, 3, 0])


def test_epochs_and_seeds_differ():
    first, second = (batch_indices(1000, 1000, n, seed=0) for n in (0, 1))
    other = batch_indices(1000, 1000, 0, seed=1)
    # Two random permutations of 1,000 agree in about one place.
    assert (first == second).sum() < 10
    assert (first == other).sum() < 10


def test_a_caller_cannot_spoil_the_order_for_the_next():
    batch_indices(10, 10, 0, seed=5)[:] = 0
    assert sorted(batch_indices(10, 10, 0, seed=5)) == list(range(10))


@pytest.mark.parametrize(("field", "arguments"), [("size", (0, 1, 0)), ("batch", (1, 0, 0)), ("step", (1, 1, -1))])
def test_out_of_range_arguments_are_named(field, arguments):
    with pytest.raises(ValueError, match=f"^{field} must be at least"):
        batch_indices(*arguments, seed=0)
