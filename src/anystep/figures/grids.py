"""Pictures made of samples. Pillow only; small images are enlarged without smoothing, so that pixels can be judged."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from anystep.figures.methods import grouped, words

CELL = 64
INK, MUTED, PAPER = (28, 36, 48), (105, 115, 134), (255, 255, 255)
GAP = 3
MARGIN = 14
HEAD = 40


def grid(images: NDArray[Any], columns: int | None = None, cell: int = CELL) -> Image.Image:
    """Return ``images`` (uint8 [n, H, W, C], C = 1, 3 or 4) row by row, ``columns`` to a row (None: about square).

    Images smaller than ``cell`` pixels are enlarged by a whole factor. Raises ValueError for other arrays, none at
    all, or fewer than 1 column.
    """
    images = _checked(images, "images")
    columns = round(len(images) ** 0.5 + 0.499) if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    columns = min(columns, len(images))
    height, width = _size(images, cell)
    rows = -(-len(images) // columns)
    canvas = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), PAPER)
    for n, image in enumerate(images):
        place = (n % columns * (width + GAP), n // columns * (height + GAP))
        canvas.paste(_enlarged(image, (width, height)), place)
    return canvas


def steps_figure(rows: Mapping[str, Mapping[int, NDArray[Any]]], cell: int = CELL) -> Image.Image:
    """Return samples of the same noise at several budgets: a block a method, a row a budget, a column a noise.

    ``rows[method][steps]``: uint8 [n, H, W, C]. Raises ValueError when a row is empty or not images.
    """
    blocks = [
        (method.replace("_", " "), {f"{steps} step{'s' if steps > 1 else ''}": images for steps, images in by.items()})
        for method, by in rows.items()
    ]
    return _labelled(blocks, cell, footer=None)


def methods_figure(rows: Mapping[str, Mapping[int, NDArray[Any]]], cell: int = 40) -> Image.Image:
    """Return samples of the same noise for each method (row) and number of steps (column), fewer to the right.

    ``rows[method][steps]``: uint8 [n, H, W, C], a few images each. Methods stand in the groups of Table 1 of Frans et
    al. 2024; a place without samples stays empty. Raises ValueError when there is nothing to draw or it is not images.
    """
    groups = [{words(name): rows[name] for name in names} for names in grouped(rows).values()]
    return _matrix(groups, cell, followed="shortcut")


def guidance_figure(rows: Mapping[float, Mapping[int, NDArray[Any]]], cell: int = 40) -> Image.Image:
    """Return samples of the same noise for each guidance scale W (row) and number of steps (column).

    ``rows[W][steps]``: uint8 [n, H, W, C], a few images each. Raises ValueError when there is nothing to draw or it is
    not images.
    """
    return _matrix([{f"W = {scale:g}": by for scale, by in rows.items()}], cell, followed="")


def _matrix(groups: Sequence[Mapping[str, Mapping[int, NDArray[Any]]]], cell: int, followed: str) -> Image.Image:
    """Draw a row a label, in groups, and a column a number of steps; ``followed`` is the row in bold."""
    checked = [
        {label: {n: _checked(x, label) for n, x in by.items()} for label, by in group.items()} for group in groups
    ]
    lines = {label: by for group in checked for label, by in group.items()}
    every = [images for by in lines.values() for images in by.values()]
    if not every:
        raise ValueError("nothing to draw: no method has samples")
    height, width = _size(every[0], cell)
    block = max(map(len, every)) * (width + GAP) - GAP + 2 * MARGIN
    font, bold = ImageFont.load_default(size=15), ImageFont.load_default(size=16)
    left = 2 * MARGIN + max(int(bold.getlength(label)) for label in lines)
    budgets = sorted({n for by in lines.values() for n in by}, reverse=True)
    tall = HEAD + len(lines) * (height + GAP) + (len(groups) - 1) * MARGIN + MARGIN
    canvas = Image.new("RGB", (left + len(budgets) * block, tall), PAPER)
    draw = ImageDraw.Draw(canvas)
    for column, n in enumerate(budgets):
        draw.text(
            (left + column * block, HEAD / 2), f"{n} step{'s' if n > 1 else ''}", fill=INK, font=bold, anchor="lm"
        )
    y = HEAD
    for group in checked:
        for label, by in group.items():
            place, strong = (left - MARGIN, y + height // 2), label == followed
            draw.text(place, label, fill=INK if strong else MUTED, font=bold if strong else font, anchor="rm")
            for column, n in enumerate(budgets):
                for number, image in enumerate(by.get(n, ())):
                    x = left + column * block + number * (width + GAP)
                    canvas.paste(_enlarged(image, (width, height)), (x, y))
            y += height + GAP
        y += MARGIN
    return canvas


def interpolation_figure(rows: Mapping[int, NDArray[Any]], cell: int = CELL) -> Image.Image:
    """Return samples along a path between two noises (Frans et al. 2024, eq. 6): a row a budget, columns from one noise
    to the other.

    ``rows[steps]``: uint8 [points, H, W, C]. Raises ValueError when a row is empty or not images.
    """
    named = {f"{steps} step{'s' if steps > 1 else ''}": images for steps, images in rows.items()}
    return _labelled([("", named)], cell, footer=("one noise", "another noise"))


def _labelled(
    blocks: Sequence[tuple[str, Mapping[str, NDArray[Any]]]], cell: int, footer: tuple[str, str] | None
) -> Image.Image:
    """Draw blocks of labelled rows, on paper with a margin."""
    checked = [(title, {label: _checked(images, label) for label, images in by.items()}) for title, by in blocks]
    lines = [images for _, by in checked for images in by.values()]
    if not lines:
        raise ValueError("nothing to draw: no method has samples")
    height, width = _size(lines[0], cell)
    font, bold = ImageFont.load_default(size=15), ImageFont.load_default(size=18)
    labels = [label for _, by in checked for label in by]
    left = MARGIN + max(int(font.getlength(label)) for label in labels) + 14
    right = left + max(len(images) for images in lines) * (width + GAP) - GAP
    right = max([right, *(left + int(bold.getlength(title)) for title, _ in checked)])
    head = 34
    total = sum((head if title else 0) + len(by) * (height + GAP) + MARGIN for title, by in checked)
    canvas = Image.new("RGB", (right + MARGIN, MARGIN + total + (22 if footer else 0)), PAPER)
    draw = ImageDraw.Draw(canvas)
    y = MARGIN
    for title, by in checked:
        if title:
            draw.text((left, y + head / 2 - 3), title, fill=INK, font=bold, anchor="lm")
            y += head
        for label, images in by.items():
            draw.text((left - 14, y + height / 2), label, fill=MUTED, font=font, anchor="rm")
            for n, image in enumerate(images):
                canvas.paste(_enlarged(image, (width, height)), (left + n * (width + GAP), y))
            y += height + GAP
        y += MARGIN
    if footer:
        draw.text((left, y), footer[0], fill=MUTED, font=font, anchor="lm")
        draw.text((right, y), footer[1], fill=MUTED, font=font, anchor="rm")
    return canvas


def _checked(images: NDArray[Any], name: str) -> NDArray[Any]:
    array = np.asarray(images)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] not in (1, 3, 4) or len(array) == 0:
        raise ValueError(
            f"{name}: expected some images, uint8 [n, H, W, 1, 3 or 4], got {array.dtype} {list(array.shape)}"
        )
    return array


def _size(images: NDArray[Any], cell: int) -> tuple[int, int]:
    """Return height and width on the page: enlarged by a whole factor until the longer side reaches ``cell``."""
    height, width = images.shape[1:3]
    factor = max(1, -(-cell // max(height, width)))
    return height * factor, width * factor


def _enlarged(image: NDArray[Any], size: tuple[int, int]) -> Image.Image:
    array = image[:, :, 0] if image.shape[2] == 1 else image
    picture = Image.fromarray(np.ascontiguousarray(array))
    if picture.mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (*PAPER, 255)), picture)
    return picture.convert("RGB").resize(size, Image.Resampling.NEAREST)
