"""The page: every number is on it, nothing is loaded from elsewhere, nothing of a config can become markup."""

import json
import re
from dataclasses import replace

import pytest
from PIL import Image

from anystep.core.errors import RunError
from anystep.report.curves import loss_figure
from anystep.report.page import write_report
from anystep.report.run import ReportImage, RunSummary


def protocol(steps, **more):
    return {
        "num": 1024, "reference": "digits", "reference_hash": "ab" * 32, "reference_num": 1437,
        "features": "raw_pixels", "seed": 13, "steps": steps, "schedule": f"{steps} x 1/{steps}",
        "guidance": 1.0, "ema": "0.995",
        "metrics": {"recall": {"k": 3, "rows": 1001}},
        "code": {"package": "0.1.0", "commit": "cd" * 20, "dirty": False},
    } | more  # fmt: skip


def score(method, steps, frechet, **more):
    return {"method": method, "run": method, "steps": steps, "guidance": 1.0, "frechet": frechet, "recall": 0.87,
            "accuracy": None, "accuracy_real": 0.976, "seconds": 1.25, "notes": [],
            "protocol": protocol(steps)} | more  # fmt: skip


def log(n=5, tags=("flow", "1/2", "1")):
    return [
        {"step": 10 * i, "images": 2560 * i, "loss": 1 / i, "loss_by_level": dict.fromkeys(tags, 0.5 / i),
         "loss_by_t": {tag: [0.1, None, 0.3] for tag in tags}, "grad_norm": 2.0 / i, "lr": 1e-3, "skipped": 0}
        for i in range(1, n + 1)
    ]  # fmt: skip


def run(name, scores=()):
    config = {"recipe": f"digits-{name}", "objective": {"name": name, "share": 0.25}, "training": {"images": 480123}}
    return RunSummary(name, config, log(), scores, commands=[f"anystep train digits-{name} --out x"])


def picture():
    return ReportImage(Image.new("RGB", (8, 8), (200, 30, 30)), "The same noise", "Ten columns & a <caption>")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    runs = [
        run("shortcut", [score("shortcut", 1, 0.8123), score("shortcut", 128, 0.4177, notes=["a note <b>"])]),
        run("flow_matching", [score("flow_matching", 1, 10.634), score("flow_matching", 128, 0.4561)]),
    ]
    path = write_report(
        tmp_path_factory.mktemp("page") / "new" / "report.html", title="Digits <1>", runs=runs, images=[picture()]
    )
    return path.read_text(encoding="utf-8")


def test_every_number_is_on_it(page):
    text = re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
    for shown in ("0.812", "0.418", "10.634", "0.456", "0.870", "0.976", "1.250"):
        assert shown in text
    for shown in ("1,024", "1,437", "ab" * 32, "cd" * 20, "0.995", "128 x 1/128", "1001", "480123", "0.25", "13"):
        assert shown in text
    assert "anystep train digits-flow_matching --out x" in text


def test_nothing_is_loaded_from_elsewhere(page):
    assert not re.search(r"https?:|//[a-z]|<script|<link|@import|url\((?!#)", page)
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in sources)


def test_references_inside_it_lead_somewhere(page):
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    targets = set(re.findall(r'href="#([^"]*)"', page)) | set(re.findall(r"url\(#([^)]*)\)", page))
    assert targets <= set(ids)


def test_text_cannot_become_markup(page):
    assert "Digits &lt;1&gt;" in page
    assert "a &lt;caption&gt;" in page
    assert "a note &lt;b&gt;" in page


def test_the_smaller_distance_at_equal_steps_is_marked_and_precision_never(page):
    assert re.findall(r'class="n best">([^<]*)<', page) == ["0.812", "0.418"]


def test_scores_of_different_protocols_are_in_different_tables(tmp_path):
    rows = [score("shortcut", 1, 0.5), score("shortcut", 4, 0.4, protocol=protocol(4, num=5000))]
    path = write_report(tmp_path / "r.html", title="t", runs=[run("shortcut", rows)])
    text = path.read_text()
    assert text.count('<table class="scores">') == 2
    assert "5,000 samples against" in text


def test_guidance_has_a_column_where_there_is_any(page, tmp_path):
    assert re.findall(r"<th(?: class=n)?>([^<]*)", page)[:3] == ["Method", "Steps", "Fréchet distance "]
    guided = [score("shortcut", 1, 0.5), score("shortcut", 1, 0.6, guidance=1.5)]
    page = write_report(tmp_path / "r.html", title="t", runs=[run("shortcut", guided)]).read_text()
    assert re.findall(r"<th(?: class=n)?>([^<]*)", page)[:3] == ["Method", "Steps", "Guidance"]


def test_an_image_says_which_of_several_runs_it_is_of(tmp_path):
    runs = [replace(run(name), images=[replace(picture(), caption="")]) for name in ("shortcut", "flow_matching")]
    page = write_report(tmp_path / "r.html", title="t", runs=runs).read_text()
    assert re.findall(r"</b>([^<]*)</figcaption>", page) == [". shortcut", ". flow matching"]
    page = write_report(tmp_path / "r.html", title="t", runs=runs[:1]).read_text()
    assert re.findall(r"</b>([^<]*)</figcaption>", page) == [""]


def test_runs_of_one_method_go_by_their_names_in_every_table(tmp_path):
    """Also in the table of a protocol that only one of them was scored by, and where a run was moved since."""
    config = {"objective": {"name": "improved_shortcut"}}
    for name in ("+wavelet", "+ot"):
        rows = [score("improved_shortcut", n, 0.5, run="elsewhere, step 17") for n in (4, 1)]
        if name == "+ot":
            rows += [score("improved_shortcut", 1, 0.25, run="+ot, step 17", protocol=protocol(1, num=7))]
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        (tmp_path / name / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in log(2)))
        (tmp_path / name / "scores.json").write_text(json.dumps({"scores": rows}))
    runs = [RunSummary.read(tmp_path / name) for name in ("+wavelet", "+ot")]
    page = write_report(tmp_path / "r.html", title="t", runs=runs).read_text()
    assert re.findall(r"class=first><td>(.*?)</td>", page) == ["+wavelet", "+ot", "+ot"]
    assert re.findall(r"<h3>(.*?)</h3>", page) == ["+wavelet", "+ot"]
    assert re.findall(r"<span>Fréchet distance, (.*?)</span>", page) == [
        "+wavelet, 1 step", "+wavelet, 4 steps", "+ot, 1 step", "+ot, 4 steps",
    ]  # fmt: skip


def test_a_run_directory_becomes_a_page(tmp_path):
    root = tmp_path / "first"
    root.mkdir()
    (root / "config.json").write_text(json.dumps({"objective": {"name": "shortcut"}}))
    lines = [json.dumps(record) for record in log(3)]
    (root / "log.jsonl").write_text("\n".join(lines) + '\n{"step": 40, "ima')
    (root / "scores.json").write_text(json.dumps({"scores": [score("shortcut", 2, 0.25)]}))
    (root / "samples").mkdir()
    for name in ("samples_128", "samples_2", "steps"):
        Image.new("L", (4, 4)).save(root / "samples" / f"{name}.png")
    summary = RunSummary.read(root)
    assert (summary.name, summary.method, summary.images_seen, len(summary.log)) == ("first", "shortcut", 7680, 3)
    assert [p.title for p in summary.images] == [
        "The same noise in more and more steps", "Samples in 2 steps", "Samples in 128 steps",
    ]  # fmt: skip
    page = write_report(root / "report.html", title="first", runs=[summary]).read_text()
    assert "7,680 images" in page
    assert "0.250" in page


def test_a_weight_has_panels_of_its_own():
    figure = loss_figure([record | {"weight_by_level": {"flow": 1, "1": record["step"]}} for record in log(3)])
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title("left") for axes in shown[4:]] == ["Weight by kind of example"]
    flow, _, one = shown[4].get_lines()
    assert (list(flow.get_ydata()), list(one.get_ydata())) == ([1, 1, 1], [10, 20, 30])
    assert list(one.get_xdata()) == [2560, 5120, 7680]


def test_gradients_have_panels_where_they_were_measured():
    measured = {"gradient_norm": {"flow": 4.0, "1": 2.0, "marked": 3.0}, "gradient_cosine": {"1": 0.5, "marked": 0.01}}
    first, *rest = log(3)
    norm, cosine = loss_figure([first | measured, *rest]).axes[4:]
    assert [axes.get_title("left") for axes in (norm, cosine)] == [
        "Gradient norm by kind", "Cosine with the flow's gradient",
    ]  # fmt: skip
    assert (norm.get_lines()[-1].get_ydata()[0], cosine.get_lines()[-1].get_ydata()[0]) == (3, 0.01)
    assert cosine.get_yscale() == "linear"  # a cosine can be negative


def test_a_run_with_nothing_but_its_config_is_a_page_too(tmp_path):
    page = write_report(tmp_path / "r.html", title="t", runs=[RunSummary("x", {"seed": 3})]).read_text()
    assert "<h2>Configuration</h2>" in page
    assert "<h2>Training</h2>" not in page


def test_broken_runs_are_named(tmp_path):
    with pytest.raises(RunError, match=r"is not a run directory: it has no config\.json"):
        RunSummary.read(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "log.jsonl").write_text('{"images": 1}\nnonsense\n{"images": 3}\n')
    with pytest.raises(RunError, match=r"log\.jsonl, line 2: not JSON"):
        RunSummary.read(tmp_path)
    (tmp_path / "log.jsonl").unlink()
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"cannot read the image .*bad\.png"):
        write_report(tmp_path / "r.html", title="t", runs=[RunSummary.read(tmp_path)])
    assert not (tmp_path / "r.html").exists()
    with pytest.raises(ValueError, match="at least one run"):
        write_report(tmp_path / "r.html", title="t", runs=[])


def test_equal_runs_make_equal_pages(tmp_path):
    one, two = (
        write_report(tmp_path / name, title="t", runs=[run("shortcut", [score("shortcut", 1, 0.5)])]) for name in "ab"
    )
    assert one.read_bytes() == two.read_bytes()
