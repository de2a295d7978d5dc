"""Features of a data set: kept with their rows, in the fingerprint, normalised, and refused by key and row."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.toys import feature_vector

from anystep.codecs import Vectors, encode_condition
from anystep.core.errors import DataError, UsageError
from anystep.data import Dataset, Npz
from anystep.flow.condition import ConditionSpec, Entry, class_labels
from anystep.run.facts import DataFacts

from .conftest import both

N = 40


@pytest.fixture
def arrays(rng) -> dict[str, Any]:
    return {
        "vectors": rng.normal(size=(N, 3)).astype(np.float32),
        "state": rng.normal([5, -2], [10, 0.1], size=(N, 2)),
        "goal": rng.integers(9, size=N),
        "labels": np.arange(N) % 3,
    }


def npz(tmp_path: Path, arrays: dict[str, Any], **options: Any) -> Npz:
    np.savez(tmp_path / "set.npz", **arrays)
    return Npz(path=str(tmp_path / "set.npz"), **{"images": "vectors", "labels": None, "heldout": 0.0} | options)


def test_the_form_of_a_condition_follows_from_what_there_is(tmp_path: Path, arrays) -> None:
    def spec(**options: Any) -> ConditionSpec:
        return npz(tmp_path, arrays, **options).open().conditions

    assert spec() == ConditionSpec() and spec(labels="labels") == class_labels(3)
    assert spec(conditions=("state",)) == feature_vector(2)
    assert spec(conditions=("state",), drop=False) == feature_vector(2, drop=False)
    features = {"state": Entry("feature", (2,)), "goal": Entry("feature", ())}
    assert spec(conditions=("state", "goal")) == ConditionSpec(features, single=False)
    label = {"label": Entry("label", (), ("0", "1", "2"))}
    assert spec(conditions=("state", "goal"), labels="labels") == ConditionSpec(label | features, single=False)


def test_rows_keep_their_features_in_every_part_of_a_set(arrays) -> None:
    """Array or function, split or subset: row i has the features of row i."""
    features = {"state": arrays["state"], "row": np.float32}
    whole = Dataset.from_arrays("set", arrays["vectors"], arrays["labels"], conditions=features)
    rows = []
    for part in (*both(whole, 0.25), whole.subset(np.array([7, 3])).subset(np.array([1]))):
        condition: Any = part.condition(np.arange(len(part)))
        row = condition["row"].long().numpy()
        np.testing.assert_array_equal(condition["state"], arrays["state"][row].astype(np.float32))
        np.testing.assert_array_equal(part.read(np.arange(len(part))), arrays["vectors"][row])
        np.testing.assert_array_equal(condition["label"], arrays["labels"][row])
        rows.append(row.tolist())
    assert sorted(rows[0] + rows[1]) == list(range(N)) and rows[2] == [3]


def test_the_fingerprint_is_that_of_the_content_of_features_too(arrays) -> None:
    x, state = arrays["vectors"], arrays["state"]
    changed = state.copy()
    changed[-1, -1] += 1
    sets = [
        Dataset.from_arrays("set", x),
        *(Dataset.from_arrays("set", x, conditions={"a": s}) for s in (state, changed, state[:, :1], state[:, 0])),
        Dataset.from_arrays("set", x, conditions={"a": state, "b": state}),
        Dataset.from_arrays("set", x, conditions={"b": state, "c": state}),
    ]
    assert len({data.fingerprint for data in sets}) == len(sets)
    function = Dataset.from_function("f", N, lambda i: x[i], codec=Vectors(), conditions={"a": lambda i: state[i]})
    assert function.fingerprint == sets[1].fingerprint


def test_features_are_seen_with_unit_deviation_and_what_lacks_them_stays_nan(tmp_path: Path, arrays) -> None:
    arrays["state"][[4, 9], [0, 1]] = np.nan
    data = npz(tmp_path, arrays, conditions=("state", "goal"), missing=True).open()
    facts = DataFacts.of(data)
    facts.write(tmp_path, "test")
    assert (
        DataFacts.read(tmp_path).condition_codecs["state"].statistics() == facts.condition_codecs["state"].statistics()
    )
    raw: Any = data.condition(np.arange(N))
    seen: Any = encode_condition(facts.condition_codecs, facts.conditions, raw)
    assert seen["state"].isnan().all(1).nonzero().flatten().tolist() == [4, 9]
    assert seen["state"].isnan().any(1).sum() == 2
    assert torch.equal(raw["state"].isnan(), seen["state"].isnan())
    assert seen["goal"].shape == (N,) and abs(float(seen["goal"].mean())) < 1e-5
    assert float(seen["goal"].std(correction=0)) == pytest.approx(1, abs=1e-4)
    given = seen["state"][~seen["state"].isnan().any(1)]
    assert abs(float(given.mean())) < 1e-4 and float(given.square().mean()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": np.full((N, 2), np.nan)}, "set.npz, state: row 0 has nan, expected finite numbers; data.missing"),
        ({"state": np.where(np.arange(N) == 7, np.inf, 1.0)}, "set.npz, state: row 7 has inf, expected finite"),
        ({"state": np.zeros((N - 1, 2))}, "set.npz, state: expected numbers [40, ...], one row for each example, got "
         "float64 [39, 2]"),
        ({"state": np.float64(3)}, "set.npz, state: expected numbers [40, ...]"),
        ({"state": np.array(["a"] * N)}, "set.npz, state: expected numbers [40, ...], one row for each"),
        ({"state": np.zeros((N, 0))}, "set.npz, state: expected numbers [40, ...]"),
        ({"state": np.ones((N, 2))}, "set.npz, state: every column is constant, there is nothing to learn"),
    ],
)  # fmt: skip
def test_bad_features_are_named_by_key_and_row(tmp_path: Path, arrays, change, message) -> None:
    source = npz(tmp_path, arrays | change, conditions=("state",))
    with pytest.raises(DataError, match=re.escape(message)) as error:
        DataFacts.of(source.open())
    assert "\n" not in str(error.value)


def test_missing_features_must_be_there_in_some_row_and_may_be_left_out(tmp_path: Path, arrays) -> None:
    everything = npz(tmp_path, arrays | {"state": np.full((N, 2), np.nan)}, conditions=("state",), missing=True)
    with pytest.raises(DataError, match="state: every example lacks this feature"):
        DataFacts.of(everything.open())
    with pytest.raises(UsageError, match=r"data.missing needs data.drop"):
        replace(everything, drop=False)
    with pytest.raises(DataError, match=r"no array 'pose'; the file contains .*: --data.conditions NAME"):
        replace(everything, conditions=("pose",)).open()


def test_a_function_that_returns_nan_is_named_by_its_row_in_the_whole_set(arrays) -> None:
    def angle(row: int) -> float:
        return float("nan") if row == 31 else float(row)

    whole = Dataset.from_arrays("set", arrays["vectors"], conditions={"angle": angle})
    whole.condition(np.arange(31))
    with pytest.raises(DataError, match="set, angle: row 31 has nan"):
        whole.subset(np.array([30, 31])).condition(np.array([1]))


def test_a_feature_cannot_take_the_name_of_the_class(arrays) -> None:
    with pytest.raises(DataError, match="label is the name of the class"):
        Dataset.from_arrays("set", arrays["vectors"], arrays["labels"], conditions={"label": arrays["state"]})
    with pytest.raises(UsageError, match="letters, digits and _"):
        Dataset.from_arrays("set", arrays["vectors"], arrays["labels"], conditions={"a.b": arrays["state"]})
