"""Figures of sample images, by Pillow alone. Small images are enlarged without smoothing, so pixels stay visible."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from anystep.figures.canvas import INK, MUTED
from anystep.figures.methods import by_group, display_name, steps_name

GAP = 3
MARGIN = 14
HEAD = 40

#: images uint8 [n, H, W, C] by label and number of steps
Samples = Mapping[str, Mapping[int, NDArray[Any]]]


def grid(images: NDArray[Any], columns: int | None = None, cell: int = 64) -> Image.Image:
    """Return ``images`` (uint8 [n, H, W, C], C = 1, 3 or 4) in rows of ``columns`` (None: about square).

    Images smaller than ``cell`` pixels are enlarged by an integer factor. Raises ValueError for other arrays.
    """
    tiles = _tiles(images, "images", cell)
    columns = min(columns or int(np.ceil(len(tiles) ** 0.5)), len(tiles))
    width, height = tiles[0].width + GAP, tiles[0].height + GAP
    canvas = Image.new("RGB", (columns * width - GAP, -(-len(tiles) // columns) * height - GAP), "white")
    for n, tile in enumerate(tiles):
        canvas.paste(tile, (n % columns * width, n // columns * height))
    return canvas


def steps_figure(samples: Samples, cell: int = 64) -> Image.Image:
    """Return samples of the same noises: a block per method, a row per number of steps, a column per noise.

    ``samples[method][steps]``: uint8 [n, H, W, C]. Raises ValueError when there are none, or they are not images.
    """
    blocks = [
        (display_name(method), {steps_name(n): {n: images} for n, images in by_steps.items()})
        for method, by_steps in samples.items()
    ]
    return _table(blocks, cell)


def interpolation_figure(samples: Mapping[int, NDArray[Any]], cell: int = 64) -> Image.Image:
    """Return samples along a path between two noises (Frans et al. 2024, eq. 6), a row per number of steps.

    ``samples[steps]``: uint8 [points, H, W, C]. Raises ValueError when there are none, or they are not images.
    """
    return _table([("From one noise to another", {steps_name(n): {n: images} for n, images in samples.items()})], cell)


def methods_figure(samples: Samples, cell: int = 40) -> Image.Image:
    """Return samples of the same noises: a row per method, a column per number of steps, fewer to the right.

    ``samples[method][steps]``: uint8 [n, H, W, C], a few images each; any may be missing. Methods are grouped as in
    Table 1 of Frans et al. 2024. Raises ValueError when there are no samples, or they are not images.
    """
    groups = by_group(samples).values()
    blocks = [("", {display_name(name): samples[name] for name in names}) for names in groups]
    return _table(blocks, cell, columns=True)


def guidance_figure(samples: Mapping[float, Mapping[int, NDArray[Any]]], cell: int = 40) -> Image.Image:
    """Return samples of the same noises: a row per guidance scale W, a column per number of steps.

    ``samples[W][steps]``: uint8 [n, H, W, C], a few images each. Raises ValueError when there are none, or they are not
    images.
    """
    rows = {f"W = {scale:g}": by_steps for scale, by_steps in samples.items()}
    return _table([("", rows)], cell, columns=True)


def classes_figure(samples: Mapping[str, NDArray[Any]], cell: int = 64) -> Image.Image:
    """Return images of a data set, a row per class. ``samples[name]``: uint8 [n, H, W, C]. Raises ValueError."""
    return _table([("", {name: {1: images} for name, images in samples.items()})], cell)


def _table(blocks: Sequence[tuple[str, Samples]], cell: int, columns: bool = False) -> Image.Image:
    """Draw blocks of labelled rows under their titles; a row has images by number of steps.

    ``columns``: each number of steps is a column, fewer to the right. Without it a row is one line of images.
    """
    tiled = [
        (title, {label: {n: _tiles(images, label, cell) for n, images in row.items()} for label, row in block.items()})
        for title, block in blocks
    ]
    rows = [(label, row) for _, block in tiled for label, row in block.items()]
    cells = [tiles for _, row in rows for tiles in row.values()]
    if not cells:
        raise ValueError("nothing to draw: no method has samples")
    width, height = cells[0][0].width + GAP, cells[0][0].height + GAP
    font, bold = ImageFont.load_default(size=15), ImageFont.load_default(size=17)
    left = 2 * MARGIN + max(int(bold.getlength(label)) for label, _ in rows)
    column_width = max(map(len, cells)) * width - GAP + 2 * MARGIN
    steps = sorted({n for _, row in rows for n in row}, reverse=True) if columns else []
    place = {n: left + column * column_width for column, n in enumerate(steps)}
    titles = [title for title, _ in blocks if title]
    right = left + max([column_width * max(1, len(place)), *(int(bold.getlength(title)) + MARGIN for title in titles)])
    heads = HEAD * (len(titles) + bool(place))
    canvas = Image.new("RGB", (right, heads + len(rows) * height + len(blocks) * MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    for n, x in place.items():
        draw.text((x, HEAD / 2), steps_name(n), fill=INK, font=bold, anchor="lm")
    y = HEAD if place else 0
    for title, block in tiled:
        if title:
            draw.text((left, y + HEAD / 2), title, fill=INK, font=bold, anchor="lm")
            y += HEAD
        for label, row in block.items():
            middle, strong = (left - MARGIN, y + height // 2), label == "shortcut"
            draw.text(middle, label, fill=INK if strong else MUTED, font=bold if strong else font, anchor="rm")
            for n, tiles in row.items():
                for number, tile in enumerate(tiles):
                    canvas.paste(tile, (place.get(n, left) + number * width, y))
            y += height
        y += MARGIN
    return canvas


def _tiles(images: NDArray[Any], name: str, cell: int) -> list[Image.Image]:
    """Return images [n, H, W, C] on white, enlarged by an integer factor until a side has ``cell`` pixels."""
    array = np.asarray(images)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] not in (1, 3, 4) or len(array) == 0:
        raise ValueError(f"{name}: images must be uint8 [n, H, W, 1, 3 or 4], got {array.dtype} {list(array.shape)}")
    factor = max(1, -(-cell // max(array.shape[1:3])))
    tiles = []
    for image in array:
        tile = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).convert("RGBA")
        tile = Image.alpha_composite(Image.new("RGBA", tile.size, "white"), tile).convert("RGB")
        tiles.append(tile.resize((tile.width * factor, tile.height * factor), Image.Resampling.NEAREST))
    return tiles
