"""Table 1 and Figure 4 of a comparison: every number where it belongs, nothing on top of each other."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anystep.figures import canvas
from anystep.figures.grids import GAP, HEAD, MARGIN, methods_figure
from anystep.figures.methods import METHODS, by_group, line_style
from anystep.objectives import OBJECTIVES
from anystep.report.comparison import ROOM, comparison_figure, spread_out
from anystep.report.curves import loss_figure
from anystep.report.table1 import table_text


def row(method, steps, value, **more):
    return {"method": method, "steps": steps, "seeds": [0], "mean": {"frechet": value}, "spread": {"frechet": 0.0},
            "caution": None, "forward_units": 840192} | more  # fmt: skip


def paper():
    """Frans et al. 2024, Table 1, CelebA-HQ-256: FID-50k in 128, 4 and 1 steps; parentheses there, cautions here."""
    table = {
        "progressive_distillation": (302.9, 251.3, 14.8),
        "consistency_distillation": (59.5, 39.6, 38.2),
        "reflow": (16.1, 18.4, 23.2),
        "diffusion": (23.0, 123.4, 132.2),
        "flow_matching": (7.3, 63.3, 280.5),
        "consistency_training": (53.7, 19.0, 33.2),
        "live_reflow": (6.3, 27.2, 43.3),
        "shortcut": (6.9, 13.8, 20.5),
    }
    meant = {"progressive_distillation": {1}, "diffusion": {128}, "flow_matching": {128}}
    return [
        row(method, steps, value, caution=None if steps in meant.get(method, {steps}) else f"{method} is not for it")
        for method, values in table.items()
        for steps, value in zip((128, 4, 1), values, strict=True)
    ]  # fmt: skip


def test_the_papers_table_reads_as_in_the_paper():
    lines = table_text(paper(), "frechet").splitlines()
    cells = {line[:26].strip(): re.split(r" {2,}", line[26:].strip()) for line in lines if line.startswith("  ")}
    assert cells["progressive distillation"] == ["(302.90)", "(251.30)", "14.80*", "840,192"]
    assert cells["flow matching"] == ["7.30", "(63.30)", "(280.50)", "840,192"]
    assert cells["shortcut"] == ["6.90", "13.80", "20.50", "840,192"]
    order = [line.strip().split("  ")[0] for line in lines[4:] if line and not line.startswith(("*", "( )", "   "))]
    assert order == ["two phases", "progressive distillation", "consistency distillation", "reflow", "end to end",
                     "diffusion", "flow matching", "consistency training", "live reflow", "shortcut"]  # fmt: skip
    assert "    progressive_distillation is not for it" in lines


def test_the_best_in_one_step_is_one_that_was_meant():
    rows = [row("shortcut", 1, 2.0), row("flow_matching", 1, 1.0, caution="no"), row("imm", 1, 3.0)]
    assert re.findall(r"(\S+)\*", table_text(rows, "frechet")) == ["2.00"]
    rows = [r | {"mean": {"recall": r["mean"]["frechet"]}, "spread": {"recall": 0.0}} for r in rows]
    assert "*" not in table_text(rows, "recall")  # highest where variety is lost, as precision is


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]])
def test_twelve_methods_and_six_budgets_fit_a_hundred_columns(seeds):
    rows = [
        row(method, steps, 12.3456, seeds=seeds, spread={"frechet": 0.5}, forward_units=60_000_000)
        for method in [*OBJECTIVES, "progressive_distillation", "consistency_distillation", "mean_flow", "imm"]
        for steps in (1, 2, 4, 8, 32, 128)
    ]
    text = table_text(rows, "frechet")
    assert max(map(len, text.splitlines())) <= 100
    heads = [int(n) for n in re.findall(r"(\d+) steps?", text.splitlines()[2])]
    assert heads == [128, 32, 8, 4, 2, 1] if len(seeds) == 1 else set(heads) >= {128, 4, 1}
    assert text.count("±0.5") == (0 if len(seeds) == 1 else len({r["method"] for r in rows}) * len(heads))


def test_failures_and_missing_values_are_no_numbers():
    rows = [row("shortcut", 1, None, seeds=[]), row("reflow", 1, 2.0, seeds=[1]), row("imm", 1, None)]
    failures = [
        {"method": "shortcut", "seed": 0, "steps": None, "why": "loss not finite"},
        {"method": "reflow", "seed": 0, "steps": 1, "why": "samples not finite"},
    ]
    text = table_text(rows, "frechet", failures)
    assert re.search(r"shortcut +failed ", text) and re.search(r"reflow +2\.00† ", text) and re.search(r"imm +– ", text)
    assert "failed: shortcut, seed 0: loss not finite" in text
    assert "failed: reflow, seed 0, 1 step: samples not finite" in text


def test_every_method_has_a_group_and_its_own_line_style():
    assert METHODS.keys() >= set(OBJECTIVES)
    looks = {(line_style(m).colour, line_style(m).marker) for m in OBJECTIVES}
    assert len(looks) == len(OBJECTIVES)
    assert by_group(["yours", "shortcut"]) == {"end to end": ["shortcut"], "beyond the paper": ["yours"]}


def test_lines_are_means_with_their_seeds_and_names_stand_apart():
    summary = [row(method, steps, value * steps, seeds=[0, 1]) for steps in (1, 4)
               for method, value in (("shortcut", 1.0), ("reflow", 1.001), ("imm", 5.0))]  # fmt: skip
    summary[0]["caution"] = "no"
    scores = [
        {"method": r["method"], "seed": seed, "steps": r["steps"], "frechet": r["mean"]["frechet"] * factor}
        for r in summary
        for seed, factor in enumerate((0.9, 1.1))
    ]
    figure = comparison_figure(summary, scores)
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    np.testing.assert_array_equal(lines["imm"].get_data(), [[1, 4], [5.0, 20.0]])
    bars = [line.get_ydata() for line in axes.get_lines() if list(line.get_xdata()) == [4, 4]]
    np.testing.assert_allclose(bars[2], [18.0, 22.0])
    hollow = [
        line for line in axes.get_lines() if line.get_markerfacecolor() == "white" and line.get_marker() != "None"
    ]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in hollow] == [([1], [1.0])]
    heights = sorted(text.get_position()[1] for text in axes.texts)
    assert len(heights) == 3 and min(np.diff(heights)) >= ROOM - 1e-9
    assert axes.get_xlim()[0] > axes.get_xlim()[1], "fewer steps to the right"
    assert canvas.to_image(figure, dpi=40).mode == "RGB"
    with pytest.raises(ValueError, match="no score to draw: frechet is missing or null everywhere"):
        comparison_figure([row("shortcut", 1, None)], [])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12).map(sorted), st.floats(0.01, 0.1))
def test_places_that_overlap_share_out_around_where_they_were(places, room):
    """The nearest in least squares: apart, in order, their mean kept, and untouched where there was room."""
    found = spread_out(places, room)
    assert min(np.diff(found), default=room) >= room - 1e-9
    assert np.mean(found) == pytest.approx(np.mean(places), abs=1e-9)
    if min(np.diff(places), default=room) >= room:
        assert found == pytest.approx(places)


def test_a_grid_of_methods_has_fewer_steps_to_the_right_and_leaves_gaps():
    def images(value):
        return np.full((2, 8, 8, 1), value, np.uint8)

    picture = methods_figure({"shortcut": {1: images(10), 4: images(20)}, "reflow": {1: images(30)}}, cell=8)
    grey = np.asarray(picture.convert("L"))
    block = 2 * (8 + GAP) - GAP + 2 * MARGIN
    left = grey.shape[1] - 2 * block
    first, second = HEAD, HEAD + 8 + GAP + MARGIN  # two phases stand above end to end
    assert grey[first, left + block] == 30 and grey[first, left] == 255
    assert (grey[second, left], grey[second, left + block]) == (20, 10)
    with pytest.raises(ValueError, match="nothing to draw"):
        methods_figure({})


def test_kinds_of_example_without_a_step_size_have_their_own_names():
    log = [
        {"images": n, "loss": 1.0, "loss_by_level": {"flow": 1.0, "1/2": 0.5, "consistency": value},
         "loss_by_t": {"flow": [1.0], "1/2": [None], "consistency": [0.2]}}
        for n, value in ((1, None), (2, 0.3))
    ]  # fmt: skip
    _, level, time, _ = loss_figure(log).axes
    lines = {line.get_label(): line for line in level.get_lines()}
    assert list(lines) == ["flow", "d = 1/2", "consistency"]
    np.testing.assert_array_equal(lines["consistency"].get_ydata(), [np.nan, 0.3])
    assert [a.get_color() for a in time.get_lines()] == [b.get_color() for b in lines.values()]
