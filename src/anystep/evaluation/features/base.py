"""A feature space: what distances between sets of examples are measured on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from anystep.codecs import Codec, Rows
from anystep.core.errors import UsageError

Array = NDArray[np.float64]

#: maps decoded examples (float32 images where a space does not want rounded ones) to named arrays, examples on the
#: first axis, such as "features" and "logits"; hashable
Extractor = Callable[[Rows], Mapping[str, NDArray[Any]]]


class Features(NamedTuple):
    """A batch in one feature space: features [n, F], a classifier's logits [n, K] if it is one, and the classes [n]."""

    values: Array
    logits: Array | None = None
    classes: NDArray[np.int64] | None = None

    def pick(self, index: NDArray[np.int64]) -> "Features":
        """Return some examples of the batch."""
        return Features(*(None if array is None else array[index] for array in self))  # type: ignore[arg-type]


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
    """How images are resized first: "none", "area 64x64 to 32x32"."""
    version: str = ""
    """Hash of the extractor's weights; empty without weights."""
    rounded: bool = True
    """Whether samples are rounded to pixels first. If not they are float32 in the same unit, 0 to 255."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further facts by name, such as the accuracy of a classifier."""


#: builds a space for examples of a shape ([C, H, W] or [D]) and a device. Raises UsageError, naming the extra or the
#: file, where something that the space needs is not installed.
Build = Callable[[Codec, tuple[int, ...], torch.device], FeatureSpace]


def extract(
    spaces: Mapping[str, FeatureSpace], stored: Mapping[bool, Rows], classes: NDArray[np.int64] | None = None
) -> dict[str, Features]:
    """Return one batch in each space. ``stored`` has its examples rounded (True), not rounded, or both.

    Raises UsageError for an extractor without the output that a space names, ValueError for features that are not
    finite.
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
        values = values.reshape(len(values), int(np.prod(values.shape[1:])))
        if bad := int((~np.isfinite(values)).any(1).sum()):
            raise ValueError(f"features {space.name!r} must be finite, but those of {bad} of {len(values)} are not")
        features[key] = Features(values, None if logits is None else np.asarray(logits, dtype=np.float64), classes)
    return features
