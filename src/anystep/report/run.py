"""What a report shows of a run directory: config, log, scores, images."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from anystep.core.errors import RunError, reason
from anystep.evaluation.scores import read_scores
from anystep.figures.methods import display_name, steps_name
from anystep.report.series import ScoreRecord, of_run
from anystep.run.facts import read_json

#: largest number of previews of a run
PREVIEWS = 4


@dataclass(frozen=True)
class ReportImage:
    """An image for the page with its title and a caption."""

    image: Image.Image | Path
    title: str
    caption: str = ""


@dataclass(frozen=True)
class RunSummary:
    """A run for the page: its config, the records of its log, its scores and images, commands that rerun it."""

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    log: Sequence[Mapping[str, Any]] = ()
    scores: Sequence[ScoreRecord] = ()
    images: Sequence[ReportImage] = ()
    commands: Sequence[str] = ()

    @classmethod
    def read(cls, run: str | Path, name: str = "") -> "RunSummary":
        """Read a run directory; ``name``: by default the directory's.

        Everything but config.json may be missing. Images are the PNG files in the directory and in samples/, and a few
        of previews/. Raises RunError without config.json, or naming a file (and line) that is not JSON.
        """
        root = Path(run)
        name = name or root.resolve().name
        config = read_json(root / "config.json")
        try:
            scores = read_scores(root / "scores.json") if (root / "scores.json").exists() else []
        except ValueError as error:
            raise RunError(f"cannot read {root}: {reason(error)}") from error
        again = shlex.quote(f"{root}-again")
        return cls(
            name=name,
            config=config,
            log=_read_log(root / "log.jsonl"),
            scores=of_run(name, scores),
            images=[
                ReportImage(path, _image_title(path.stem))
                for folder in (root, root / "samples")
                for path in sorted(folder.glob("*.png"), key=_image_order)
            ]
            + _previews(root / "previews", config),
            commands=[
                f"anystep train {shlex.quote(f'{root}/config.json')} --out {again}",
                f"anystep sample {again} --steps 1 2 4 8 128",
                f"anystep evaluate {again} --steps 1 2 4 8 128",
                f"anystep report {again}",
            ],
        )

    @property
    def method(self) -> str:
        """Name of the method, or of the run if the config has none; of a user's "module:Class" the class."""
        return str(self.config.get("objective", {}).get("name") or self.name).rpartition(":")[2]

    @property
    def images_seen(self) -> int | None:
        """Number of training images, None without a log."""
        return int(self.log[-1]["images"]) if self.log else None


def read_runs(paths: Sequence[Path]) -> list[RunSummary]:
    """Read run directories. Each has the name of its directory, or if two have the same name, its path."""
    names = {path.resolve().name for path in paths}
    return [RunSummary.read(path, "" if len(names) == len(paths) else str(path)) for path in paths]


def run_names(runs: Sequence[RunSummary]) -> list[str]:
    """Return display names: those of the methods, or of the runs if two have the same method."""
    methods = [run.method for run in runs]
    return [display_name(name) for name in methods] if len(set(methods)) == len(runs) else [run.name for run in runs]


def _image_title(stem: str) -> str:
    """Return the title of an image that `anystep sample` wrote under this name."""
    steps = re.fullmatch(r"samples_(\d+)", stem)
    if steps:
        return f"Samples in {steps_name(int(steps[1]))}"
    return "The same noise in more and more steps" if stem == "steps" else display_name(stem)


def _image_order(path: Path) -> tuple[bool, str]:
    """Sort steps.png first, then by name with 2 before 128."""
    return path.stem != "steps", re.sub(r"\d+", lambda number: number[0].zfill(9), path.stem)


def _previews(folder: Path, config: Mapping[str, Any]) -> list[ReportImage]:
    """Return at most `PREVIEWS` of a run's previews, from the first to the last."""
    found = [(path, int(path.stem.removeprefix("step-"))) for path in sorted(folder.glob("step-*.png"))]
    count, batch = min(len(found), PREVIEWS), int(config.get("training", {}).get("batch", 1))
    shown = [found[round(n * (len(found) - 1) / max(1, count - 1))] for n in range(count)]
    return [ReportImage(path, f"Preview after {step * batch:,} images") for path, step in shown]


def _read_log(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log, none without the file. A last line that a kill cut short is ignored."""
    records = []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise RunError(f"{path}, line {number}: not JSON ({error})") from error
    return records
