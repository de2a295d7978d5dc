"""What a run directory says about itself, read for a report."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from anystep.core.errors import RunError
from anystep.figures.methods import words
from anystep.report.rows import of_run

FOLDERS = (".", "samples")


@dataclass(frozen=True)
class Picture:
    """An image for the page with its title and a sentence that says how it was made."""

    image: Image.Image | Path
    title: str
    caption: str = ""


@dataclass(frozen=True)
class RunSummary:
    """A run for the page: its complete config, the records of its log, and what was made of it.

    ``scores`` are rows of `anystep.evaluation.evaluate.evaluate`; ``commands`` re-make the run, one a line.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    log: Sequence[Mapping[str, Any]] = ()
    scores: Sequence[Mapping[str, Any]] = ()
    pictures: Sequence[Picture] = ()
    commands: Sequence[str] = ()

    @classmethod
    def read(cls, directory: str | Path, *, commands: Sequence[str] | None = None) -> "RunSummary":
        """Read a run directory: config.json must be there; log.jsonl, scores.json and pictures (*.png) may be.

        Pictures lie in the directory itself or in samples/. ``commands`` None gives the ones that follow
        from the config. Raises RunError without config.json, or naming the file (and the line of the log) that is no
        JSON; a last line of the log that a kill cut short is left out.
        """
        root = Path(directory)
        name = root.resolve().name
        config = _json(root / "config.json", dict)
        scores = root / "scores.json"
        pictures = [
            Picture(path, _title(path.stem))
            for folder in FOLDERS
            for path in sorted((root / folder).glob("*.png"), key=_order)
        ]
        return cls(
            name=name,
            config=config,
            log=_lines(root / "log.jsonl"),
            scores=of_run(name, _json(scores, dict).get("scores", [])) if scores.exists() else [],
            pictures=pictures,
            commands=_commands(root) if commands is None else commands,
        )

    @property
    def method(self) -> str:
        """The method's name, or the run's where the config does not say."""
        objective = self.config.get("objective")
        name = objective.get("name") if isinstance(objective, Mapping) else None
        return str(name or self.name).rpartition(":")[2]  # "module:Class" of one's own

    @property
    def images(self) -> int | None:
        """Training images seen, or None without a log."""
        return int(self.log[-1]["images"]) if self.log else None


def told_apart(runs: Sequence[RunSummary], paths: Sequence[Path]) -> list[RunSummary]:
    """Return the runs with their paths for names, in their scores too, where two directories have the same name."""
    if len({run.name for run in runs}) == len(runs):
        return list(runs)
    return [
        replace(run, name=str(path), scores=of_run(str(path), run.scores))
        for run, path in zip(runs, paths, strict=True)
    ]


def run_names(runs: Sequence[RunSummary]) -> list[str]:
    """Return what people read for each run: the methods, or the runs' own names where two have the same method."""
    methods = [run.method for run in runs]
    return [words(name) for name in methods] if len(set(methods)) == len(runs) else [run.name for run in runs]


def _title(stem: str) -> str:
    """Return a picture's title from the name that `anystep sample` gave it."""
    budget = re.fullmatch(r"samples_(\d+)", stem)
    if budget:
        return f"Samples in {budget[1]} step{'s' if budget[1] != '1' else ''}"
    return "The same noise in more and more steps" if stem == "steps" else stem.replace("_", " ")


def _order(path: Path) -> tuple[bool, list[tuple[int, str]]]:
    """Sort the picture of all budgets first, then by name with 2 before 128."""
    parts = re.findall(r"\d+|\D+", path.stem)
    return path.stem != "steps", [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _commands(root: Path) -> list[str]:
    """Return the commands that make this run again, from the directory it was read from."""
    config, again = shlex.quote(f"{root}/config.json"), shlex.quote(f"{root}-again")
    return [
        f"anystep train {config} --out {again}",
        f"anystep sample {again} --steps 1 2 4 8 128",
        f"anystep evaluate {again} --steps 1 2 4 8 128",
        f"anystep report {again}",
    ]


def _json(path: Path, kind: type) -> Any:
    """Return a file's JSON value of this kind."""
    if not path.exists():
        raise RunError(f"{path.parent} is not a run directory: it has no {path.name}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, kind):
        raise RunError(f"{path}: expected an object, got {type(value).__name__}")
    return value


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log; none when there is no file."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(json.loads(line))
        except ValueError as error:
            if number == len(lines):  # no line end: the process died while writing it
                break
            raise RunError(f"{path}, line {number}: not JSON ({error})") from error
    return records
