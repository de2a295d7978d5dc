"""Figures: pixels stay what they were, rows and columns are where they are said to be, curves hold the values."""

import sys

import numpy as np
import pytest

from anystep.figures import canvas
from anystep.figures.grids import GAP, MARGIN, grid, guidance_figure, interpolation_figure, steps_figure
from anystep.figures.marginals import marginals
from anystep.figures.scatter import scatter
from anystep.report.curves import loss_figure, score_figure


def numbered(n, size=8, channels=1):
    """Images whose pixels hold 10 x their number + row."""
    rows = np.arange(size, dtype=np.uint8)[None, :, None, None]
    number = (np.arange(n, dtype=np.uint8) * 10)[:, None, None, None]
    return np.broadcast_to(number + rows, (n, size, size, channels)).copy()


def test_a_grid_holds_each_image_enlarged_exactly():
    images = numbered(5)
    picture = np.asarray(grid(images, columns=3, cell=30))
    side = 32  # 8 pixels, four times
    assert picture.shape == (2 * side + GAP, 3 * side + 2 * GAP, 3)
    for n in range(5):
        y, x = n // 3 * (side + GAP), n % 3 * (side + GAP)
        cell = picture[y : y + side, x : x + side, 0]
        assert (cell == np.kron(images[n, :, :, 0], np.ones((4, 4)))).all()
    assert (picture[side + GAP :, 2 * (side + GAP) :] == 255).all()


def test_large_images_are_kept_and_transparency_shows_paper():
    images = np.zeros((1, 100, 100, 4), np.uint8)
    picture = np.asarray(grid(images, columns=9))
    assert picture.shape == (100, 100, 3)
    assert (picture == 255).all()


def test_rows_are_budgets_and_columns_noises():
    rows = {
        "shortcut": {1: numbered(12), 128: numbered(12) + 100},
        "flow_matching": {1: numbered(12) + 50},
    }
    picture = np.asarray(steps_figure(rows, cell=8))[:, :, 0].astype(int)
    column = picture[:, picture.shape[1] - 2 * MARGIN - 8]  # of the last noise, number 11
    ramp = list(range(110, 118))
    assert column[column != 255].tolist() == ramp + [v + 100 for v in ramp] + [v + 50 for v in ramp]
    assert steps_figure(rows).tobytes() == steps_figure(rows).tobytes()


def test_rows_are_guidance_scales_and_columns_budgets():
    images = {scale: {n: numbered(3) + 40 * row + 2 * n for n in (1, 4)} for row, scale in enumerate((1.0, 2.5))}
    picture = np.asarray(guidance_figure(images, cell=8))[:, :, 0].astype(int)
    place = picture.shape[1] - 2 * MARGIN - 8  # the last noise's column, number 2, of one step: fewer to the right
    column = picture[40:, place]  # below the heads
    ramp = list(range(20, 28))
    assert column[column != 255].tolist() == [v + 2 for v in ramp] + [v + 42 for v in ramp]
    with pytest.raises(ValueError, match="nothing to draw"):
        guidance_figure({})


def test_interpolation_has_a_title():
    picture = interpolation_figure({1: numbered(6), 4: numbered(6)}, cell=8)
    assert (np.asarray(picture)[:30] < 200).any()


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 8, 8)), np.zeros((0, 8, 8, 1), np.uint8), np.zeros((1, 4, 4, 2), np.uint8)]
)
def test_what_is_no_image_is_refused(wrong):
    with pytest.raises(ValueError, match="images must be uint8"):
        grid(wrong)


def scores():
    return [
        {"method": "shortcut", "steps": 4, "guidance": 1.0, "frechet": 0.5, "recall": None},
        {"method": "shortcut", "steps": 1, "guidance": 1.0, "frechet": 0.8, "recall": None},
        {"method": "flow_matching", "steps": 1, "guidance": 1.0, "frechet": 10.0, "recall": None},
    ]


def test_scores_are_drawn_over_steps_a_line_a_method():
    figure = score_figure(scores())
    (axes,) = [a for a in figure.axes if a.get_visible()]
    lines = {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axes.get_lines()}
    assert lines == {"shortcut": [(1, 0.8), (4, 0.5)], "flow matching": [(1, 10.0)]}
    assert axes.get_xscale() == "log"


def test_scores_at_two_guidance_scales_are_two_lines():
    rows = [*scores(), {"method": "shortcut", "steps": 1, "guidance": 2.0, "frechet": 0.9}]
    labels = {line.get_label() for line in score_figure(rows).axes[0].get_lines()}
    assert {"shortcut, guidance 1", "shortcut, guidance 2", "flow matching"} == labels


def test_an_average_is_a_line_and_so_is_a_run():
    """Rows of two runs of one method, one of them with two averages, in the order in which they were scored."""
    rows = [
        {"method": "improved_shortcut", "run": f"{run}, step 17", "steps": steps, "guidance": 1.5, "frechet": value,
         "protocol": {"ema": ema}}
        for run, ema, steps, value in (
            ("+wavelet", "0.995", 4, 2.0), ("+wavelet", "none", 4, 3.0), ("+wavelet", "0.995", 1, 4.0),
            ("+ot", "0.999", 1, 6.0), ("+wavelet", "none", 1, 5.0),
        )
    ]  # fmt: skip
    lines = {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in score_figure(rows).axes[0].lines}
    assert lines == {
        "+wavelet, EMA 0.995": [(1, 4.0), (4, 2.0)],
        "+wavelet, EMA raw": [(1, 5.0), (4, 3.0)],
        "+ot": [(1, 6.0)],
    }
    rows[0]["run"] = "+wavelet, step 9"  # two checkpoints of one run
    names = [line.get_label() for line in score_figure(rows).axes[0].lines]
    assert names[0] == "+wavelet, step 9" and "+wavelet, step 17, EMA raw" in names


@pytest.mark.parametrize("runs", [("shortcut", "flow"), [f"a-rather-long-name-of-a-run-{n}" for n in range(20)],
                                  ["runs/" + 30 * "deeper/" + n for n in "ab"]])  # fmt: skip
def test_names_of_lines_fit_below_the_panels(runs):
    rows = [
        {"method": "shortcut", "run": run, "steps": n, "guidance": 1.0, "frechet": 1.0} for run in runs for n in (1, 4)
    ]
    figure = score_figure(rows)
    figure.draw_without_rendering()
    (named,) = figure.legends
    box = named.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0
    assert box.y1 < figure.axes[0].get_tightbbox().y0 and figure.axes[0].bbox.height > 150
    styles = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(styles) == len(runs)


def test_a_log_is_drawn_with_gaps_where_nothing_was_measured():
    log = [
        {"images": 10, "loss": 2.0, "loss_by_level": {"flow": 1.0, "1": None}, "loss_by_t": {"flow": [1.0, None]},
         "skipped": 0},
        {"images": 20, "loss": None, "loss_by_level": {"flow": 0.5, "1": 0.25}, "loss_by_t": {"flow": [3.0, None]},
         "skipped": 3},
    ]  # fmt: skip
    loss, level, time, norm = loss_figure(log).axes
    np.testing.assert_array_equal(loss.get_lines()[0].get_ydata(), [2.0, np.nan])
    by_name = {line.get_label(): line.get_ydata() for line in level.get_lines()}
    np.testing.assert_array_equal(by_name["d = 1"], [np.nan, 0.25])
    np.testing.assert_array_equal(time.get_lines()[0].get_ydata(), [3.0, np.nan])
    assert norm.get_title(loc="right") == "3 updates skipped"
    with pytest.raises(ValueError, match="no records yet"):
        loss_figure([])


def test_points_are_drawn_beside_the_data():
    data = np.random.default_rng(0).standard_normal((500, 2))
    figure = scatter({"shortcut": {1: data + 1, 4: data}, "flow_matching": {4: data}}, data)
    drawn = [[len(c.get_offsets()) for c in axes.collections] for axes in figure.axes]
    assert drawn == [[500, 500], [500, 500], [500], [500, 500]]
    assert canvas.to_image(figure, dpi=40).mode == "RGB"
    with pytest.raises(ValueError, match=r"points must have shape \[n, 2\], got \[3, 3\]"):
        scatter({"shortcut": {1: np.eye(3)}})


def test_columns_are_drawn_against_the_data_and_in_pairs_that_depend_on_each_other():
    """Column 3 is 100 times column 0 with a little noise, column 1 is one value, column 2 depends on nothing."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal(400)
    data = np.stack([first, np.full(400, 7.0), rng.standard_normal(400), 100 * first + rng.standard_normal(400)], 1)
    figure = marginals({1: data + 1, 8: data}, data)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown[:4]] == [f"column {n}" for n in range(4)]
    pairs = [(axes.get_xlabel(), axes.get_ylabel()) for axes in shown[4:]]
    assert pairs[:2] == [("column 0", "column 3")] * 2 and len(pairs) == 3 * 2
    assert not any("column 1" in pair for pair in pairs)
    for axes in shown[:4]:
        real, one, eight = (patch.get_data().values for patch in axes.patches)
        np.testing.assert_array_equal(real, eight)
        assert real.sum() == pytest.approx(1, abs=0.02) and not np.array_equal(real, one)
    assert len(marginals({1: np.zeros((5, 1))}).axes) == 4, "one column of one value, and no pair"
    with pytest.raises(ValueError, match=r"vectors must have shape \[n, D\]"):
        marginals({1: data, 2: data[:, :2]})
    with pytest.raises(ValueError, match="nothing to draw"):
        marginals({})


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[report\]'"):
        score_figure(scores())
