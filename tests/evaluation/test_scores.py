"""Scores on disk: written atomically, and one record for each measurement."""

import json
import math

import pytest

from anystep.evaluation.scores import keep_scores, read_scores


def row(steps, frechet, run="digits, step 10", **protocol):
    return {"run": run, "steps": steps, "frechet": frechet, "protocol": {"num": 10, "code": {"commit": "a"}} | protocol}


def test_scores_are_written_atomically(tmp_path):
    path = tmp_path / "deep" / "scores.json"
    keep_scores(path, [{"frechet": 0.1 + 0.2}])
    assert json.loads(path.read_text()) == {"scores": [{"frechet": 0.1 + 0.2}]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        keep_scores(path, [{"frechet": math.nan}])
    assert json.loads(path.read_text())["scores"] == [{"frechet": 0.1 + 0.2}]
    assert [file.name for file in path.parent.iterdir()] == ["scores.json"]


def test_a_new_record_replaces_the_one_that_measures_the_same_and_no_other(tmp_path):
    path = tmp_path / "scores.json"
    keep_scores(path, [row(1, 0.5), row(4, 0.2)])
    keep_scores(path, [row(1, 0.4, code={"commit": "b"}, torch_version="9", key_version=2), row(1, 0.6, num=20)])
    keep_scores(path, [row(4, 0.1, run="digits, step 20")])
    assert [(r["steps"], r["frechet"]) for r in read_scores(path)] == [
        (4, 0.2), (1, 0.4), (1, 0.6), (4, 0.1),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"scores": 3}', '{"scores": [3]}'])
def test_a_file_without_scores_is_not_changed(tmp_path, text):
    path = tmp_path / "scores.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"scores\.json does not hold scores"):
        keep_scores(path, [row(1, 0.5)])
    assert path.read_text() == text


def test_a_record_of_0_1_0_measures_the_same(tmp_path):
    """Its protocol has no feature space, and nothing of a metric without parameters."""
    path = tmp_path / "scores.json"
    then = {"recall": {"k": 3, "rows": 10}}
    now = {"frechet": {"space": "data"}, "recall": {"space": "data", "k": 3, "rows": 10}}
    keep_scores(path, [row(1, 0.5, metrics=then)])
    keep_scores(path, [row(1, 0.4, metrics=now)])
    assert [r["frechet"] for r in read_scores(path)] == [0.4]
    keep_scores(path, [row(1, 0.3, metrics={"frechet": {"space": "inception"}})])
    assert len(read_scores(path)) == 2
