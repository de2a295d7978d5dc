"""What a run would see of its data, found by the code with which it reads the data."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from anystep.core.errors import DataError
from anystep.data.base import Dataset, select_split
from anystep.data.folder import Folder, list_images
from anystep.data.image_source import Contents, ImageSource, attempts, decoding_threads
from anystep.data.images import stored_form
from anystep.data.source import Source


@dataclass(frozen=True)
class Inspection:
    """What was found in a source, and what a run gets of it.

    ``count``: examples found. ``sizes``: (width, height) and ``modes`` of images as they are stored, with how many
    there are. ``unusable``: where a bad image is, and why; ``ignored``: other files. ``dataset``: the examples to train
    on, without the bad ones; ``heldout``: how many are held out. ``problem``: why a run with these options would stop.
    """

    count: int
    sizes: Mapping[tuple[int, int], int]
    modes: Mapping[str, int]
    unusable: Sequence[tuple[str, str]]
    ignored: Sequence[str]
    dataset: Dataset
    heldout: int
    problem: str | None

    @property
    def classes(self) -> dict[str, int]:
        """The number of examples to train on by class, the fewest last; nothing without classes."""
        if self.dataset.labels is None:
            return {}
        counts = np.bincount(self.dataset.labels, minlength=self.dataset.num_classes or 0)
        named = zip(self.dataset.class_names or (), counts.tolist(), strict=True)
        return dict(sorted(named, key=lambda item: -item[1]))

    def facts(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        return {
            "count": self.count,
            "sizes": [[*size, count] for size, count in self.sizes.items()],
            "modes": dict(self.modes),
            "classes": self.classes,
            "unusable": [list(each) for each in self.unusable],
            "ignored": list(self.ignored),
            "examples": len(self.dataset),
            "heldout": self.heldout,
            "shape": list(self.dataset.read(np.zeros(1, np.int64)).shape[1:]),
            "problem": self.problem,
        }


def inspect(source: Source) -> Inspection:
    """Return what a run with this source would see. Raises DataError for data of which it could use nothing."""
    if not isinstance(source, ImageSource):  # nothing to decode
        dataset, heldout = source.open("train"), 0
        with suppress(DataError):  # none are held out
            heldout = len(source.open("heldout"))
        return Inspection(len(dataset) + heldout, {}, {}, [], [], dataset, heldout, None)
    contents = source.contents()
    lenient = replace(source, on_bad_image="skip")
    with without_warnings():  # of skipped images, which the inspection has
        whole = replace(lenient, heldout=0.0).open("train")
    dataset = select_split(whole, source.heldout, "train")
    heldout = len(whole) - len(dataset)
    if contents is None:  # vectors
        return Inspection(len(dataset) + heldout, {}, {}, [], [], dataset, heldout, None)
    sizes, modes = stored_forms(contents)
    _, bad = lenient.decode(contents.images)
    unusable = [(contents.images.where(number), why) for number, why in bad]
    ignored = list_images(Path(source.path).expanduser().resolve())[1] if isinstance(source, Folder) else []
    problem = None
    if bad and source.on_bad_image == "error":
        try:
            source.decode_all(contents.images)
        except DataError as error:
            problem = str(error)
    return Inspection(contents.images.num, sizes, modes, unusable, ignored, dataset, heldout, problem)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Let the library log errors only."""
    logger = logging.getLogger("anystep")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def stored_forms(contents: Contents) -> tuple[dict[tuple[int, int], int], dict[str, int]]:
    """Return how many images have each (width, height), and each mode, the most first; unusable ones have none."""
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    with decoding_threads(contents.images) as pool:
        for form in attempts(pool, contents.images, stored_form):
            if not isinstance(form, str):
                mode, width, height = form
                sizes[width, height] += 1
                modes[mode] += 1
    return dict(sizes.most_common()), dict(modes.most_common())
