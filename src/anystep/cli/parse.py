"""Options of the subcommands, read by tyro, which prints help and errors itself and then raises SystemExit (0 or 2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tyro

from anystep.core.errors import UsageError
from anystep.core.fields import require
from anystep.core.registry import import_modules

Options = TypeVar("Options")

#: an option that sets True, without a --no- form
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
#: `--import`: the modules to import before a run or a config is opened
Imports = Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(
        name="import", metavar="MODULE", help="Import this module first, for the classes of your own that it defines."
    ),
]


@dataclass(frozen=True)
class RunOptions:
    """Options of the subcommands that sample from a run."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory."""
    steps: list[int]
    """Numbers of sampling steps, any integers of at least 1."""
    num: int | None = None
    """Number of samples. Default: 64, or the number of rows in --condition."""
    guidance: list[float] | None = None
    """Guidance scales W, 1 for none; each on the same noise. Default: as trained, and built-in guidance not twice."""
    guide_twice: Flag = False
    """Allow guidance at steps that have it from training, or that were not trained for it."""
    seed: int = 0
    """Seed of the noise."""
    checkpoint: int | None = None
    """Step of the checkpoint to use, one that --checkpoint.keep-every has kept. Default: the newest."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    imports: Imports = ()


@dataclass(frozen=True)
class ConfigOptions:
    """Options of the subcommands that take a config."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")] = ""
    """A recipe (`anystep recipes` lists them; compare takes a family too), a config.json, or a run directory."""
    out: Path | None = None
    """Run directory to write. Default: runs/RECIPE, or with --resume the run directory that RECIPE is."""
    images: int | None = None
    """Short for --training.images: length of the run; may grow with --resume."""
    batch: int | None = None
    """Short for --training.batch: images per batch."""
    device: str | None = None
    """Short for --training.device: auto, cpu, cuda or mps."""
    dry_run: Flag = False
    """Print what would be trained and what it would cost. Trains and writes nothing."""
    codec: str | None = None
    """Class of the section `codec`. Default: the recipe's."""
    penalty: str | None = None
    """Class of the section `penalty`. Default: the recipe's."""
    weight: str | None = None
    """Class of the section `weight`. Default: the recipe's."""
    imports: Imports = ()


def parse(options: type[Options], argv: Sequence[str], subcommand: str, description: str) -> Options:
    """Return the options of a subcommand without a config. `--import`ed modules are imported."""
    args = tyro.cli(options, args=list(argv), prog=f"anystep {subcommand}", description=description)
    import_modules(getattr(args, "imports", ()))
    return args


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
