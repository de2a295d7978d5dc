"""`anystep data inspect`: print what a run would see of its data, before it is trained."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from shutil import get_terminal_size
from textwrap import fill
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image

from anystep.cli.files import check_writable, write_json, write_png
from anystep.cli.parse import Flag, unset, wrapped
from anystep.cli.sections import Command
from anystep.cli.tables import print_table
from anystep.core.errors import DataError, UsageError, counted
from anystep.data.base import Dataset
from anystep.data.folder import by_kind
from anystep.data.inspection import Inspection, inspect
from anystep.data.npz import Npz, array_forms
from anystep.data.source import Source
from anystep.figures.grids import classes_figure, grid
from anystep.recipes import FAMILIES

DESCRIPTION = """Print what a run would see of your data: images, sizes, modes, classes, files that cannot be read.
Images are decoded into the cache, where the run finds them. --data.field options are those of train.

example: anystep data inspect pictures
         anystep data inspect pictures --data.size 64 --data.heldout 0.1
         anystep data inspect arrays.npz --data.images x --no-sheet
         anystep data inspect emoji"""

#: of a sheet: rows, images in a row, pixels of an image's side; of a list: names that are shown, classes that are
ROWS, COLUMNS, SIDE, FEW, CLASSES = 20, 12, 128, 3, 30
#: families whose images need no file
BUILT_IN = ("digits", "emoji")
#: files in a folder that the library `datasets` has saved
SAVED = ("*.parquet", "state.json", "dataset_dict.json")


@dataclass(frozen=True)
class InspectOptions:
    """Options of `anystep data inspect`."""

    path: Annotated[str, tyro.conf.Positional, unset("FOLDER|FILE")] = ""
    """First: a folder of images, an .npz or .parquet file, a folder of parquet files, digits or emoji."""
    sheet: Annotated[Path, unset("FILE.png")] = Path("inspect.png")
    """Contact sheet: images as a run sees them. Default: inspect.png."""
    no_sheet: Flag = False
    """Write no contact sheet."""
    json: Annotated[Path | None, unset("FILE")] = None
    """Write what is printed to this file."""


def run(argv: Sequence[str]) -> int:
    """Print what is found, write the sheet; returns 0. Raises DataError for data that a run could not use."""
    args, path, family, source = parse_inspect(argv)
    check_writable(args.json, args.sheet)
    found = inspect(source)
    print_found(found, source)
    if found.dataset.codec.looks == "picture" and not args.no_sheet:
        if args.sheet.resolve().is_relative_to(path.resolve()):
            print("note: no contact sheet among the images: --sheet FILE.png puts it elsewhere", file=sys.stderr)
        else:
            write_png(args.sheet, contact_sheet(found.dataset))
            print_row("sheet", str(args.sheet))
    command = train_command(source, family)
    if args.json is not None:
        write_json(args.json, {"path": str(path), **found.facts(), "command": command})
    if found.problem is not None:
        raise DataError(found.problem)
    print(f"train on it: {command}")
    return 0


def parse_inspect(argv: Sequence[str]) -> tuple[InspectOptions, Path, str, Source]:
    """Return the options, the path, and the source with the family of recipes that it is for; prints an .npz's arrays.

    As in `sections`, the first call of tyro reads the path, which selects the options that the second reads.
    """
    prog = "anystep data inspect"
    args, _ = tyro.cli(InspectOptions, args=list(argv), prog=prog, return_unknown_args=True, add_help=False)
    path, path_first = Path(args.path), list(argv[:1]) == [args.path]
    family, source = find_source(path) if path_first else ("folder32", FAMILIES["folder32"].main.data)
    default = Command(InspectOptions(), {"data": source})
    command = tyro.cli(Command, args=list(argv), default=default, prog=prog, description=wrapped(DESCRIPTION))
    if not path_first:
        raise UsageError("data inspect starts with a folder or file, e.g. anystep data inspect pictures")
    source = command.config["data"]
    if isinstance(source, Npz):
        forms = array_forms(path)
        shapes = [" x ".join(map(str, shape)) for _, shape in forms.values()]
        print_table({"array": forms, "shape": shapes, "type": [str(dtype) for dtype, _ in forms.values()]})
        if is_vectors(forms.get(source.images)):
            family, source = "vectors", replace(source, size=None)
    return args, path, family, source


def find_source(path: Path) -> tuple[str, Source]:
    """Return the family of recipes for the data at a path, and its source with that path. Raises DataError."""
    if not path.exists():
        if str(path) in BUILT_IN:
            return str(path), FAMILIES[str(path)].main.data
        raise DataError(f"{path}: no such file or folder")
    family = "folder32"
    options: dict[str, Any] = {}
    if path.suffix == ".npz":
        forms = array_forms(path)
        pixels = [name for name, (dtype, shape) in forms.items() if dtype == np.uint8 and len(shape) in (3, 4)]
        likely = [*(name for name in ("images", "vectors") if name in forms), *pixels, "images"]
        family, options = "npz32", {"images": likely[0], "labels": "labels" if "labels" in forms else None}
    elif path.suffix == ".parquet" or any(any(path.glob(name)) for name in SAVED):
        family = "hub32"
    elif not path.is_dir():
        raise DataError(f"{path}: expected a folder of images, an .npz or a .parquet file")
    source: Any = FAMILIES[family].main.data
    return family, replace(source, path=str(path), **options)


def is_vectors(form: tuple[np.dtype[Any], tuple[int, ...]] | None) -> bool:
    """Return whether an array of this type and shape is vectors, and not images."""
    return form is not None and form[0].kind == "f" and len(form[1]) == 2


def print_found(found: Inspection, source: Any) -> None:
    """Print what was found, and what a run gets of it."""
    shape = tuple(found.dataset.read(np.zeros(1, np.int64)).shape[1:])
    images = found.dataset.codec.looks == "picture"
    columns = "" if images else f" of {counted(shape[0], 'column')}"
    print_row("images" if images else "vectors", f"{found.count:,}{columns}")
    if found.sizes:
        print_row("sizes", describe_sizes(found.sizes))
        print_row("modes", ", ".join(f"{mode} {count:,}" for mode, count in found.modes.items()))
    if found.ignored:
        others = counted(len(found.ignored), "other file")
        print_row("ignored", f"{others}: {by_kind(found.ignored)} ({few(found.ignored)})")
    if found.unusable:
        print_row("unusable", f"{len(found.unusable):,}")
        for where, why in found.unusable[:FEW]:
            print_row("", f"{where}: {why}")
    print_row("classes", describe_classes(found.classes))
    if images:
        height, width, channels = shape
        same = getattr(source, "size", None) is None or list(found.sizes) == [(width, height)]
        how = "as stored" if same else "the centre square, resized (--data.size)"
        print_row("a run gets", f"{width} x {height} {'grey' if channels == 1 else 'rgb'}, {how}")
    held_out = f"{found.heldout:,} (--data.heldout {source.heldout:g})"
    print_row("held out", held_out if found.heldout else "none; --data.heldout 0.1 keeps a tenth for evaluate")


def print_row(name: str, text: str) -> None:
    """Print a name and a text, which is wrapped to the terminal's width."""
    options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    print(fill(text, get_terminal_size().columns, initial_indent=f"{name:<12}", subsequent_indent=" " * 12, **options))


def describe_sizes(sizes: Mapping[tuple[int, int], int]) -> str:
    """Return the sizes of images in few words."""
    (width, height), most = next(iter(sizes.items()))
    common = f"{width} x {height}"
    if len(sizes) == 1:
        return f"all {common}"
    sides = np.repeat([min(size) for size in sizes], list(sizes.values()))
    short = f"shorter side {sides.min()} to {sides.max()}, median {np.median(sides):g}"
    return f"{len(sizes):,} different; {short}; the commonest {common} ({most:,})"


def describe_classes(classes: Mapping[str, int]) -> str:
    """Return the classes with their numbers of examples, the smallest last; of many classes the smallest."""
    if not classes:
        return "none"
    (smallest, fewest), most = list(classes.items())[-1], max(classes.values())
    if fewest == most:
        return f"{len(classes):,} of {most:,} each: {few(list(classes))}"
    if len(classes) > CLASSES:
        return f"{len(classes):,} of {fewest:,} to {most:,}; the smallest is {smallest} ({fewest:,})"
    counts = ", ".join(f"{name} ({count:,})" for name, count in classes.items())
    return f"{len(classes)}, the smallest is {smallest}: {counts}"


def few(names: Sequence[str]) -> str:
    """Return the first names."""
    return ", ".join(names[:FEW]) + (", ..." if len(names) > FEW else "")


def contact_sheet(dataset: Dataset) -> Image.Image:
    """Return images of the set, a row per class, spread evenly over the set; of many classes the first."""

    def spread(numbers: NDArray[np.int64], count: int) -> NDArray[np.uint8]:
        chosen = numbers[np.linspace(0, len(numbers) - 1, min(count, len(numbers))).astype(np.int64)]
        return shrunk(dataset.read(chosen).numpy())

    if dataset.labels is None:
        return grid(spread(np.arange(len(dataset)), COLUMNS**2), COLUMNS)
    names = list(dataset.class_names or ())[:ROWS]
    rows = {name: np.flatnonzero(dataset.labels == number) for number, name in enumerate(names)}
    return classes_figure({name: spread(numbers, COLUMNS) for name, numbers in rows.items() if len(numbers)})


def shrunk(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images [n, H, W, C] with sides of at most `SIDE` pixels, averages of squares of pixels."""
    factor = -(-max(images.shape[1:3]) // SIDE)
    tiles = [Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).reduce(factor) for image in images]
    return np.stack([np.atleast_3d(np.asarray(tile)) for tile in tiles])


def train_command(source: Any, family: str) -> str:
    """Return the command that trains on this source: the options in which it differs from the family's."""
    names = sorted((field.name for field in fields(source)), key=lambda name: name != "path")
    values = {name: getattr(source, name) for name in names}
    usual = FAMILIES[family].main.data
    words = ["anystep", "train", f"{family}-shortcut"]
    for name, value in values.items():
        option = f"--data.{name.replace('_', '-')}"
        if value == getattr(usual, name):
            continue
        if isinstance(value, bool):
            words.append(option if value else option.replace("data.", "data.no-"))
        else:
            words += [option, *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join([*words, "--out", f"runs/{Path(values.get('path', family)).resolve().stem}"])
