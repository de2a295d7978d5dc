"""A feature space: what distances between sets of examples are measured on."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from anystep.codecs import Codec, Rows
from anystep.core.errors import UsageError

#: maps decoded examples (float32 images where a space does not want rounded ones) to named arrays with one row each,
#: such as "features" and "logits"; hashable
Extractor = Callable[[Rows], Mapping[str, NDArray[Any]]]


class Features(NamedTuple):
    """Features of some examples: ``values`` float64 [n, F], and ``logits`` [n, K] of a classifier, if it is one."""

    values: NDArray[np.float64]
    logits: NDArray[np.float64] | None = None

    def pick(self, index: NDArray[np.int64]) -> "Features":
        """Return the features of some rows."""
        return Features(self.values[index], None if self.logits is None else self.logits[index])


@dataclass(frozen=True)
class FeatureSpace:
    """One feature space, built for the examples of one model. Its facts go into the protocol."""

    name: str
    """What the features are, such as "raw_pixels"."""
    extractor: Extractor
    """Runs once per batch for all spaces with an equal extractor."""
    output: str = "features"
    """Which of the extractor's arrays the features are; "logits", if there is one, holds the logits."""
    resize: str = "none"
    """How images are resized before: "none", "area 64x64 to 32x32"."""
    version: str = ""
    """Hash of the extractor's weights; empty without weights."""
    rounded: bool = True
    """Whether samples are rounded to pixels first. Else they are float32 in the same unit, 0 to 255."""


#: Build a space for examples of a shape ([C, H, W] or [D]) and a device. Raises UsageError, in words that name the
#: extra or the file, where something that the space needs is not installed.
Build = Callable[[Codec, tuple[int, ...], torch.device], FeatureSpace]


def extract(spaces: Mapping[str, FeatureSpace], stored: Mapping[bool, Rows]) -> dict[str, Features]:
    """Return the features of one batch in each space. ``stored`` has its examples rounded (True), not rounded, or both.

    Raises UsageError for an extractor without the output that a space names.
    """
    found: dict[tuple[Extractor, bool], Mapping[str, NDArray[Any]]] = {}
    features = {}
    for key, space in spaces.items():
        once = space.extractor, space.rounded
        if once not in found:
            found[once] = space.extractor(stored[space.rounded])
        outputs = found[once]
        if space.output not in outputs:
            raise UsageError(f"features {space.name!r}: no output {space.output!r}, only {', '.join(outputs)}")
        values, logits = np.asarray(outputs[space.output], dtype=np.float64), outputs.get("logits")
        values = values.reshape(len(values), math.prod(values.shape[1:]))
        features[key] = Features(values, None if logits is None else np.asarray(logits, dtype=np.float64))
    return features
