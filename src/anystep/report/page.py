"""A run, or a comparison of runs, on one self-contained HTML page: nothing is loaded, nothing runs."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from anystep.core.files import write_text
from anystep.evaluation.scores import measured
from anystep.figures.canvas import svg
from anystep.report.curves import loss_figure, score_figure
from anystep.report.rows import grouped, labels, metric_title
from anystep.report.run import Picture, RunSummary, run_names
from anystep.report.style import CSS
from anystep.report.tables import config_table, number, score_tables

#: pictures up to this many pixels wide share a line
NARROW = 560

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{css}</style>
</head>
<body>
<header>
<h1>{title}</h1>
{lead}
{tiles}
<nav>{nav}</nav>
</header>
<main>
{sections}
</main>
<footer>Made by anystep. This file stands alone: pictures and curves are inside it.</footer>
</body>
</html>
"""


def write_report(
    path: str | Path,
    *,
    title: str,
    runs: Sequence[RunSummary],
    lead: str = "",
    pictures: Sequence[Picture] = (),
    commands: Sequence[str] | None = None,
) -> Path:
    """Write the page of one run, or of several side by side, and return its path; it appears at once or not at all.

    ``lead`` is a paragraph under the title. ``pictures`` belong to all runs and come first; each run's own follow.
    Scores of all runs share one figure and one table a protocol. ``commands`` None lists each run's own. Parts that
    are not there (no log, no scores) are left out. Raises ValueError without any run, ImportError that says what to
    install when there is a curve to draw and no matplotlib.
    """
    if not runs:
        raise ValueError("a report needs at least one run, got none")
    scores = [row for run in runs for row in run.scores]
    names = run_names(runs)
    sections = {
        "Samples": _pictures([*pictures, *(picture for run in runs for picture in run.pictures)]),
        "Scores": _scores(scores),
        "Training": "".join(
            _training(run, f"run{n}", name if len(runs) > 1 else "")
            for n, (run, name) in enumerate(zip(runs, names, strict=True))
        ),
        "Configuration": "".join(_config(run) for run in runs),
        "Make it again": _commands(runs, commands),
    }
    present = {name: text for name, text in sections.items() if text}
    page = PAGE.format(
        title=escape(title),
        css=CSS,
        lead=f'<p class="lead">{escape(lead)}</p>' if lead else "",
        tiles=_tiles(runs, names),
        nav="".join(f'<a href="#{_anchor(name)}">{name}</a>' for name in present),
        sections="\n".join(
            f'<section id="{_anchor(name)}"><h2>{name}</h2>\n{text}</section>' for name, text in present.items()
        ),
    )
    write_text(Path(path), page)
    return Path(path)


def _tiles(runs: Sequence[RunSummary], names: Sequence[str]) -> str:
    """Return the few numbers that matter: each run's first metric at its fewest and its most steps.

    Of several averages or guidance scales, the first that was scored at the most budgets.
    """
    tiles = []
    groups = grouped([row for run in runs for row in run.scores])
    called = labels(list(groups))
    for run in runs:
        name = next((m for m in measured(run.scores) if any(row.get(m) is not None for row in run.scores)), "")
        theirs = {row.get("run") for row in run.scores}
        own = {
            who: [row for row in rows if row.get(name) is not None]
            for who, rows in groups.items()
            if rows[0].get("run") in theirs
        }
        if own:
            who = max(own, key=lambda who: len({row["steps"] for row in own[who]}))
            for row in own[who][:1] + own[who][1:][-1:]:
                steps = f"{row['steps']} step{'s' if row['steps'] > 1 else ''}"
                tiles.append((f"{row[name]:.3g}", f"{metric_title(name)}, {called[who]}, {steps}"))
    if not tiles:
        tiles = [
            (number(run.images), f"images seen, {name}") for run, name in zip(runs, names, strict=True) if run.images
        ]
    cells = "".join(f'<div class="tile"><b>{value}</b><span>{escape(text)}</span></div>' for value, text in tiles)
    return f'<div class="tiles">{cells}</div>' if cells else ""


def _pictures(pictures: Sequence[Picture]) -> str:
    """Return the pictures; narrow ones stand side by side."""
    figures = ""
    for picture in pictures:
        data, width = _data(picture.image)
        caption = f"{escape(picture.title)}</b>{'. ' if picture.caption else ''}{escape(picture.caption)}"
        figures += (
            f'<figure{" class=narrow" if width <= NARROW else ""}><span class="frame"><img src="{data}" '
            f'alt="{escape(picture.title)}"></span><figcaption><b>{caption}</figcaption></figure>'
        )
    return f'<div class="pictures">{figures}</div>' if figures else ""


def _scores(scores: Sequence[Any]) -> str:
    if not scores:
        return ""
    drawn = ""
    several = len({row["steps"] for row in scores}) > 1
    if several and any(row.get(name) is not None for row in scores for name in measured(scores)):
        drawn = f"<figure>{svg(score_figure(scores), 'score')}</figure>"
    return drawn + score_tables(scores)


def _training(run: RunSummary, key: str, name: str) -> str:
    if not run.log:
        return ""
    last = run.log[-1]
    facts = [f"{number(run.images)} images", f"{number(last.get('step'))} updates"]
    if last.get("loss") is not None:
        facts.append(f"last loss {number(last['loss'])}")
    if last.get("skipped"):
        facts.append(f"{number(last['skipped'])} updates skipped")
    head = f"<h3>{escape(name)}</h3>" if name else ""
    return f'{head}<p class="quiet">{", ".join(facts)}.</p><figure>{svg(loss_figure(run.log), key)}</figure>'


def _config(run: RunSummary) -> str:
    if not run.config:
        return ""
    return f"<details><summary>{escape(run.name)}</summary>{config_table(run.config)}</details>"


def _commands(runs: Sequence[RunSummary], commands: Sequence[str] | None) -> str:
    lines = [line for run in runs for line in run.commands] if commands is None else list(commands)
    text = "\n".join(lines)
    return f"<pre>{escape(text)}</pre>" if lines else ""


def _data(image: Image.Image | Path) -> tuple[str, int]:
    """Return a PNG as a data address, and its width. Raises ValueError naming a file that is no image."""
    if isinstance(image, Path):
        try:
            with Image.open(image) as opened:
                return _data(opened.copy())
        except OSError as error:
            raise ValueError(f"cannot read the picture {image}: {error}") from error
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"), image.width


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")
