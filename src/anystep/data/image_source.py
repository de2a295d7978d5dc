"""Sources of images: their common options, and decoding, each image once, into one uint8 array in the cache."""

import json
import logging
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from anystep.core.errors import DataError
from anystep.core.files import sync
from anystep.data.base import Dataset, Split, select_split
from anystep.data.cache import cached
from anystep.data.images import BadImageError, Encoded, decode_image, stored_grey
from anystep.data.source import HeldOut, Source

T = TypeVar("T")

logger = logging.getLogger("anystep")

#: of the cache's entries; raise it when the same file would become other pixels
_VERSION = 2
#: images decoded at a time, which limits memory
_CHUNK = 64


class EncodedImages(NamedTuple):
    """Encoded images by number, from 0 to ``num - 1``.

    ``title`` names all of them in messages, ``where(number)`` one. ``read(start, stop)`` returns a range of them. When
    ``key`` changes, they are decoded again, by ``workers`` threads (0: one per core).
    """

    title: str
    num: int
    read: Callable[[int, int], Sequence[Encoded]]
    where: Callable[[int], str]
    key: Sequence[object]
    workers: int = 0


class Contents(NamedTuple):
    """The images of a source before they are decoded, the label of each and the names of the classes, or None."""

    name: str
    images: EncodedImages
    labels: NDArray[np.int64] | None
    class_names: Sequence[str] | None


@dataclass(frozen=True, kw_only=True)
class ImageSource(Source):
    """The options that every source of images has."""

    size: Annotated[int, Ge(1)] | None = None
    """Side of the square images in pixels: centre crop, then resize. None: images must have one size already."""
    channels: Literal["auto", "grey", "rgb"] = "auto"
    """auto: grey if every image is stored as grey, else rgb."""
    heldout: HeldOut = 0.0
    """Fraction of the examples held out from training, for evaluation: at least 0 and below 1."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do with an image that cannot be read or has the wrong size: stop, or skip and count it."""

    @abstractmethod
    def contents(self) -> Contents | None:
        """Return the images before they are decoded; None for data that is no images. Raises DataError."""

    def open(self, split: Split = "train") -> Dataset:
        """Return the images, decoded now or found in the cache."""
        contents = self.contents()
        assert contents is not None, f"{type(self).__name__} needs its own open"
        images, kept = self.decode_all(contents.images)
        labels = None if contents.labels is None else contents.labels[kept]
        return select_split(
            Dataset.from_arrays(contents.name, images, labels, contents.class_names), self.heldout, split
        )

    def decode_all(self, images: EncodedImages) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the decoded images and the numbers [n] of those that are not skipped.

        Raises what `decode` raises, and DataError for a bad image unless those are skipped: one warning counts them.
        """
        pixels, skipped = self.decode(images)
        if skipped:
            (number, why), count = skipped[0], len(skipped)
            if self.on_bad_image == "error":
                raise _bad_image(images.where(number), why)
            first = f"{images.where(number)} ({why})"
            logger.warning("%s: skipped %d of %d images, first %s", images.title, count, images.num, first)
        return pixels, np.setdiff1d(np.arange(images.num), [number for number, _ in skipped], assume_unique=True)

    def decode(self, images: EncodedImages) -> tuple[NDArray[np.uint8], list[tuple[int, str]]]:
        """Return the good images, a memory-mapped uint8 [n, H, W, C], and the number of each bad one with its fault.

        They are decoded into the cache, once. Raises DataError if all are bad, if the cache cannot be written, and,
        when bad images are errors, for the first that is met.
        """
        key = [_VERSION, self.size, self.channels, *images.key]
        entry = cached(key, lambda folder: self._build(folder, images))
        try:
            shape, skipped = json.loads((entry / "images.json").read_text("utf-8"))
            pixels = np.memmap(entry / "images.raw", np.uint8, "r", shape=tuple(shape))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"the cache entry {entry} is damaged ({error})\ndelete it and run again") from error
        return pixels, [(number, why) for number, why in skipped]

    def _build(self, folder: Path, images: EncodedImages) -> None:
        """Fill a cache entry: ``images.raw``, and ``images.json`` with its shape and the skipped images."""
        logger.info("%s: decoding %d images into the cache", images.title, images.num)
        skipped: list[tuple[int, str]] = []
        shape: tuple[int, ...] | None = None
        first = ""
        with decoding_threads(images) as pool, (folder / "images.raw").open("wb") as file:
            grey = self.channels == "grey"
            if self.channels == "auto":
                grey = not any(stored is False for stored in attempts(pool, images, stored_grey))
            for number, result in enumerate(attempts(pool, images, partial(decode_image, size=self.size, grey=grey))):
                if isinstance(result, str):
                    why = result
                elif shape is None or result.shape == shape:
                    shape, first = result.shape, first or images.where(number)
                    file.write(result.tobytes())  # a full disk is an OSError; with a memory map it would crash
                    continue
                else:
                    found, expected = (f"{width}x{height}" for height, width, _ in (result.shape, shape))
                    why = f"is {found} pixels, but {first} is {expected} (--data.size crops and resizes all)"
                skipped.append((number, why))
                if self.on_bad_image == "error":
                    raise _bad_image(images.where(number), why)
        if shape is None:
            why = f"; first {images.where(skipped[0][0])} ({skipped[0][1]})" if skipped else ""
            raise DataError(f"{images.title}: none of {images.num} images can be used{why}")
        sync(folder / "images.raw")
        content = json.dumps([(images.num - len(skipped), *shape), skipped])
        (folder / "images.json").write_text(content, "utf-8")


def _bad_image(where: str, why: str) -> DataError:
    return DataError(f"{where}: {why}\nrepair or remove it, or skip such images: --data.on-bad-image skip")


def decoding_threads(images: EncodedImages) -> ThreadPoolExecutor:
    """Return the threads that read these images."""
    return ThreadPoolExecutor(images.workers or os.cpu_count() or 1, thread_name_prefix="anystep-decode")


def attempts(pool: ThreadPoolExecutor, images: EncodedImages, work: Callable[[Encoded], T]) -> Iterator[T | str]:
    """Yield the result of ``work`` for each image in order; for a bad image, what is wrong with it."""

    def attempt(encoded: Encoded) -> T | str:
        try:
            return work(encoded)
        except BadImageError as error:
            return str(error)

    for start in range(0, images.num, _CHUNK):
        yield from pool.map(attempt, images.read(start, min(start + _CHUNK, images.num)))
