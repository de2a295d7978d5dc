"""One encoded image -> uint8 pixels, for all modes, bit depths, transparency and orientations."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from anystep.core.errors import reason

#: the bytes of a file, its path, or pixels [H, W, C] with C = 1 to 4
Encoded = bytes | Path | NDArray[np.uint8]

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")
_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"})


class BadImageError(Exception):
    """An image that cannot be used; the message is the reason, without the path."""


def _open_image(encoded: Encoded) -> Image.Image:
    """Return the image with only its header read."""
    if isinstance(encoded, np.ndarray):
        return Image.fromarray(np.ascontiguousarray(encoded[..., 0] if encoded.shape[-1] == 1 else encoded))
    try:
        file = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
        return Image.open(file, formats=("PNG", "JPEG", "WEBP"))
    except UnidentifiedImageError:
        raise BadImageError("no readable PNG, JPEG or WebP image") from None
    except Exception as error:  # Pillow's decoders raise nearly any type for broken files
        raise BadImageError(reason(error).splitlines()[0]) from error


def stored_grey(encoded: Encoded) -> bool:
    """Return whether the image is stored as grey, with or without transparency; only its header is read.

    Palettes count as colour, as does every WebP, which has no grey. Raises BadImageError.
    """
    with _open_image(encoded) as image:
        return image.mode in _GREY_MODES


def stored_form(encoded: Encoded) -> tuple[str, int, int]:
    """Return the image's mode (RGB, L, P, ...), width and height as it is shown; only its header is read.

    Raises BadImageError.
    """
    with _open_image(encoded) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)  # by a quarter
        width, height = image.size[::-1] if turned else image.size
        return image.mode, width, height


def _flatten(image: Image.Image) -> Image.Image:
    """Return the image as "L" or "RGB", with transparency composited on white and 16 bits per pixel scaled to 8."""
    grey = image.mode in _GREY_MODES
    if image.mode.startswith("I"):  # Pillow's own conversion clips at 255 instead of scaling
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        narrow = ((wide + 128) // 257).astype(np.uint8)
        narrow[wide == image.info.get("transparency", -1)] = 255
        return Image.fromarray(narrow)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if grey else "RGB")


def crop_resize(image: Image.Image, size: int) -> Image.Image:
    """Return the largest centred square, resized to ``size`` x ``size`` pixels.

    The filter is Lanczos over its full support when shrinking, against aliasing; beyond a factor of 3 whole pixels are
    averaged first, which is faster and not visibly different (Pillow's ``reducing_gap=3``).
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    if side == size:
        return image
    return image.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0)


def decode_image(encoded: Encoded, *, size: int | None, grey: bool) -> NDArray[np.uint8]:
    """Return pixels, uint8 [H, W, C], C = 1 if ``grey`` else 3; with ``size``, H = W = size.

    Orientation (EXIF) is applied. Raises BadImageError for a truncated or corrupt file, or another format.
    """
    with _open_image(encoded) as image:
        try:
            upright = ImageOps.exif_transpose(image)
            upright.load()
        except Exception as error:  # as in _open_image
            raise BadImageError(reason(error).splitlines()[0]) from error
        flat = _flatten(upright)
    if size is not None:
        flat = crop_resize(flat, size)
    pixels = np.asarray(flat.convert("L" if grey else "RGB"))
    return pixels[..., None] if grey else pixels
