"""Options of the subcommands, read by tyro, which prints help and errors itself and then raises SystemExit (0 or 2)."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import get_terminal_size
from textwrap import fill, indent
from typing import Annotated, Literal, TypeVar

import tyro

from anystep.codecs import CODECS
from anystep.core.errors import UsageError
from anystep.core.fields import require
from anystep.core.registry import import_modules
from anystep.flow.penalties import PENALTIES, WEIGHTS

Options = TypeVar("Options")

# https://no-color.org, as rich does in tables and progress
tyro._experimental_options["ansi_codes"] = not os.environ.get("NO_COLOR")

#: an option that sets True, without a --no- form
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]
#: `--import`: the modules to import before a run or a config is opened
Imports = Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(name="import", metavar="MODULE", help="Import this module, for your own classes."),
]


def unset(metavar: str) -> object:
    """Return the annotation of an option that is None where it is not given; its docstring names the default."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


def one_of(what: str, names: Iterable[str]) -> object:
    """Return the annotation of an option that takes a name of a registry."""
    return tyro.conf.arg(metavar="NAME", help=f"{what}: {', '.join(names)}.", help_behavior_hint="")


@dataclass(frozen=True)
class RunOptions:
    """Options of the subcommands that sample from a run."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory."""
    steps: Annotated[list[int], tyro.conf.arg(metavar="N ...")]
    """Numbers of sampling steps, any integers of at least 1."""
    num: Annotated[int | None, unset("N")] = None
    """Number of samples. Default: 64, or as many as --condition has rows."""
    guidance: Annotated[list[float] | None, unset("W ...")] = None
    """Guidance scales, 1 for none, each on the same noise. Default: as trained."""
    guide_twice: Flag = False
    """Allow guidance at steps that have it built in, or were not trained for it."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Seed of the noise."""
    checkpoint: Annotated[int | None, unset("STEP")] = None
    """Step of the checkpoint to use. Default: the newest."""
    device: Annotated[str, tyro.conf.arg(metavar="NAME")] = "auto"
    """auto, cpu, cuda or mps."""
    imports: Imports = ()


@dataclass(frozen=True)
class ConfigOptions:
    """Options of the subcommands that take a config."""

    recipe: Annotated[str, tyro.conf.Positional, unset("RECIPE")] = ""
    """First: a recipe (`anystep recipes` lists them), a config.json or a run directory."""
    out: Annotated[Path | None, unset("DIR")] = None
    """Run directory to write. Default: runs/RECIPE."""
    images: Annotated[int | None, unset("N")] = None
    """Length of the run in images; may grow with --resume."""
    batch: Annotated[int | None, unset("N")] = None
    """Images per batch."""
    device: Annotated[str | None, unset("NAME")] = None
    """auto, cpu, cuda or mps."""
    dry_run: Flag = False
    """Print what would be trained and its cost, no more."""
    codec: Annotated[str | None, one_of("How data becomes network input", CODECS)] = None
    penalty: Annotated[str | None, one_of("Penalty of the error", PENALTIES)] = None
    weight: Annotated[str | None, one_of("Weight of an example's error", WEIGHTS)] = None
    help_all: Flag = False
    """Show the config's options too, --section.field."""
    imports: Imports = ()


def parse(options: type[Options], argv: Sequence[str], subcommand: str, description: str) -> Options:
    """Return the options of a subcommand without a config. `--import`ed modules are imported."""
    args = tyro.cli(options, args=list(argv), prog=f"anystep {subcommand}", description=wrapped(description))
    import_modules(getattr(args, "imports", ()))
    return args


def wrapped(description: str) -> str:
    """Return a description whose first paragraph is wrapped to the terminal's width; the examples below it stay lines.

    The paragraph is indented, as tyro would join lines that start with a letter.
    """
    text, _, examples = description.partition("\n\n")
    return f"{indent(fill(text, get_terminal_size().columns - 2), '  ')}\n\n{examples}"


def check_steps(steps: Sequence[int]) -> None:
    """Raise UsageError for no number of steps, or one below 1."""
    if not steps:
        raise UsageError("--steps needs at least one number, e.g. --steps 1 4 128")
    require(min(steps) >= 1, "--steps", min(steps), "at least 1")


def read_weights(word: str) -> Literal["ema", "raw"] | float:
    """Return the weights that a word means: ema, raw, or the relative width of a power EMA. Raises UsageError."""
    if word in {"ema", "raw"}:
        return "ema" if word == "ema" else "raw"
    try:
        return float(word)
    except ValueError:
        raise UsageError(f"--weights must be ema, raw or the width of a power EMA such as 0.1, got {word!r}") from None
