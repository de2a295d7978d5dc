"""A run, or a comparison of runs, on one HTML page that loads nothing and runs no scripts."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from anystep.core.errors import counted
from anystep.core.files import write_text
from anystep.evaluation.scores import measured
from anystep.figures.canvas import png, to_svg
from anystep.figures.methods import steps_name
from anystep.report.curves import loss_figure, score_figure
from anystep.report.run import ReportImage, RunSummary, run_names
from anystep.report.series import ScoreRecord, by_series, metric_title, series_labels
from anystep.report.tables import TEMPLATES, number, score_tables

#: images up to this many pixels wide share a line
NARROW = 700


def write_report(
    path: str | Path, *, title: str, runs: Sequence[RunSummary], images: Sequence[ReportImage] = ()
) -> Path:
    """Write the page of one or more runs and return its path. The file is written atomically.

    ``images`` belong to all runs and come before those of each run. Scores of all runs share one figure, and one table
    per protocol. Parts without content are omitted. Raises ValueError without runs or for a file that is no image,
    ImportError when there is a curve to draw and matplotlib is missing.
    """
    if not runs:
        raise ValueError("a report needs at least one run, got none")
    names = run_names(runs)
    scores = [record for run in runs for record in run.scores]
    several = len({record["steps"] for record in scores}) > 1
    curves = several and any(record.get(name) is not None for record in scores for name in measured(scores))
    page = TEMPLATES.get_template("page.html").render(
        title=title,
        tiles=_highlights(runs, names, scores),
        images=[_inline(image) for image in [*images, *_images(runs, names)]],
        scores=score_tables(scores),
        score_curves=to_svg(score_figure(scores), "score") if curves else "",
        training=[
            (name, _training_facts(run), to_svg(loss_figure(run.log), f"run{number}"))
            for number, (run, name) in enumerate(zip(runs, names, strict=True))
            if run.log
        ],
        configs={run.name: run.config for run in runs if run.config},
        commands=[line for run in runs for line in run.commands],
    )
    write_text(Path(path), page)
    return Path(path)


def _images(runs: Sequence[RunSummary], names: Sequence[str]) -> list[ReportImage]:
    """Return the images of all runs; of several, each with its run's name where it has no caption."""
    named = [
        (image, name if len(runs) > 1 else "") for run, name in zip(runs, names, strict=True) for image in run.images
    ]
    return [replace(image, caption=image.caption or name) for image, name in named]


def _highlights(
    runs: Sequence[RunSummary], names: Sequence[str], scores: Sequence[ScoreRecord]
) -> list[tuple[str, str]]:
    """Return the main numbers, with a description: each run's first metric in the fewest and in the most steps.

    Of several series of a run (EMAs, guidance scales) the first. Without scores: images seen.
    """
    tiles = []
    series = by_series(scores)
    labels = series_labels(list(series))
    for run in runs:
        of_run = {record.get("run") for record in run.scores}
        own = [key for key, records in series.items() if records[0].get("run") in of_run]
        metric = next((m for m in measured(run.scores) if any(record.get(m) is not None for record in run.scores)), "")
        for key in own[:1]:
            scored = [record for record in series[key] if record.get(metric) is not None]
            for record in scored[:1] + scored[1:][-1:]:
                text = f"{metric_title(metric)}, {labels[key]}, {steps_name(record['steps'])}"
                tiles.append((f"{record[metric]:.3g}", text))
    seen = [(number(run.images_seen), f"images seen, {name}") for run, name in zip(runs, names, strict=True) if run.log]
    return tiles or seen


def _training_facts(run: RunSummary) -> str:
    """Return in one line how long a run was trained, and its last loss."""
    last = run.log[-1]
    facts = [f"{number(run.images_seen)} images", f"{number(last.get('step'))} updates"]
    if last.get("loss") is not None:
        facts.append(f"last loss {number(last['loss'])}")
    if last.get("skipped"):
        facts.append(f"{counted(last['skipped'], 'update')} skipped")
    return ", ".join(facts)


def _inline(image: ReportImage) -> tuple[ReportImage, str, bool]:
    """Return an image, its PNG as a `data:` address, and whether it is narrow. Raises ValueError for another file."""
    try:
        opened = Image.open(image.image) if isinstance(image.image, Path) else image.image
        opened.load()
        content = image.image.read_bytes() if isinstance(image.image, Path) and opened.format == "PNG" else png(opened)
    except OSError as error:
        raise ValueError(f"cannot read the image {image.image}: {error}") from error
    data = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
    return image, data, opened.width <= NARROW
