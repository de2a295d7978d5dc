"""Many encoded images -> one uint8 array in the cache, each decoded once."""

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from anystep.core.errors import DataError
from anystep.data.cache import RowWriter, cache_key, cached
from anystep.data.images import BadImageError, Encoded, decode, stored_grey
from anystep.data.source import Channels, OnBadImage

T = TypeVar("T")

logger = logging.getLogger("anystep")

#: raise it when the same file would become other pixels
_VERSION = 1
#: images in flight, which bounds memory
_CHUNK = 64


@dataclass(frozen=True)
class Pictures:
    """A row of encoded images: ``read(start, stop)`` gets some, ``where(row)`` tells a person which one that is.

    ``title`` names the lot; ``key`` are the parts whose change means that the images have changed.
    """

    title: str
    count: int
    read: Callable[[int, int], Sequence[Encoded]]
    where: Callable[[int], str]
    key: Iterable[object]


@dataclass(frozen=True)
class Decoding:
    """How encoded images become rows: see the fields of `ImageSource`; ``workers`` threads (0: one a core)."""

    size: int | None = None
    channels: Channels = "auto"
    on_bad_image: OnBadImage = "error"
    workers: int = 0


@dataclass(frozen=True)
class _Skipped:
    row: int
    where: str
    reason: str


def decode_all(pictures: Pictures, decoding: Decoding) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images, a memory-mapped uint8 [n, H, W, C], and which row of ``pictures`` each of them was.

    Decoded once by a pool of threads, kept in the cache and found there again until a part of the key changes.
    Raises DataError for a bad image unless they are skipped (then one warning counts them), when all are bad, and
    when the cache cannot be written.
    """
    key = cache_key([_VERSION, decoding.size, decoding.channels, *pictures.key])
    entry = cached(key, partial(_build, pictures=pictures, decoding=decoding))
    try:
        skipped = [_Skipped(**item) for item in json.loads((entry / "skipped.json").read_text("utf-8"))]
        images = np.load(entry / "images.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"the cache entry {entry} is damaged ({error})\ndelete that folder and run again") from error
    if skipped:
        if decoding.on_bad_image == "error":
            raise _bad_image(skipped[0])
        first = f"{skipped[0].where} ({skipped[0].reason})"
        logger.warning("%s: skipped %d of %d images, first %s", pictures.title, len(skipped), pictures.count, first)
    return images, np.setdiff1d(np.arange(pictures.count), [item.row for item in skipped], assume_unique=True)


def _bad_image(item: _Skipped) -> DataError:
    return DataError(
        f"{item.where}: {item.reason}\nrepair or remove it, or leave such images out: --data.on-bad-image skip"
    )


def _build(folder: Path, pictures: Pictures, decoding: Decoding) -> None:
    """Fill a cache entry: ``images.npy`` and ``skipped.json``."""
    logger.info("%s: decoding %d images into the cache", pictures.title, pictures.count)
    skipped: list[_Skipped] = []
    shape: tuple[int, ...] | None = None
    first = ""
    with ExitStack() as stack:
        threads = decoding.workers or os.cpu_count() or 1
        pool = stack.enter_context(ThreadPoolExecutor(threads, thread_name_prefix="anystep-decode"))
        grey = _wants_grey(pool, pictures, decoding)
        for row, result in _attempts(pool, pictures, partial(decode, size=decoding.size, grey=grey)):
            if isinstance(result, np.ndarray) and shape is None:
                shape, first = result.shape, pictures.where(row)
                writer = stack.enter_context(RowWriter(folder / "images.npy", shape, result.dtype))
            if isinstance(result, np.ndarray) and result.shape == shape:
                writer.append(result)
                continue
            reason = result if isinstance(result, str) else _wrong_size(result, shape, first)
            skipped.append(_Skipped(row, pictures.where(row), reason))
            if decoding.on_bad_image == "error":
                raise _bad_image(skipped[0])
    if shape is None:
        reason = f"; first {skipped[0].where} ({skipped[0].reason})" if skipped else ""
        raise DataError(f"{pictures.title}: none of {pictures.count} images can be used{reason}")
    (folder / "skipped.json").write_text(json.dumps([vars(item) for item in skipped]), "utf-8")


def _wrong_size(image: NDArray[np.uint8], shape: tuple[int, ...] | None, first: str) -> str:
    expected = f"{shape[1]}x{shape[0]}" if shape else "none"
    return f"is {image.shape[1]}x{image.shape[0]} pixels, but {first} is {expected} (--data.size crops and resizes all)"


def _wants_grey(pool: ThreadPoolExecutor, pictures: Pictures, decoding: Decoding) -> bool:
    if decoding.channels != "auto":
        return decoding.channels == "grey"
    # A bad image says nothing here; decoding reports it.
    return not any(result is False for _, result in _attempts(pool, pictures, stored_grey))


def _attempts(
    pool: ThreadPoolExecutor, pictures: Pictures, work: Callable[[Encoded], T]
) -> Iterator[tuple[int, T | str]]:
    """Yield (row, ``work`` of its image) in order, or the reason as text when the image is bad."""

    def attempt(encoded: Encoded) -> T | str:
        try:
            return work(encoded)
        except BadImageError as error:
            return str(error)

    for start in range(0, pictures.count, _CHUNK):
        some = pictures.read(start, min(start + _CHUNK, pictures.count))
        yield from enumerate(pool.map(attempt, some), start)
