"""The space `classifier`: features of a small network that was trained to classify the data set itself.

A distance between pixels is small for blurred images; these features change with what tells the classes apart. They are
the input of the last layer. `anystep data classifier` trains the network and writes two files: NAME.safetensors, the
weights, and NAME.json, which describes them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Gt, Interval
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from anystep.codecs import Codec, Rows
from anystep.core.errors import DataError, UsageError, misfit, reason
from anystep.core.fields import Checked, Fraction, PositiveFloat
from anystep.data.base import Dataset
from anystep.evaluation.features.base import FeatureSpace

Positive = Annotated[int, Gt(0)]


@dataclass(frozen=True)
class ClassifierFacts(Checked):
    """What NAME.json holds: the network's sizes, the data, the accuracy, and the settings of its training."""

    data: str
    """Name of the data set."""
    data_hash: str
    """Fingerprint of the examples that it was trained on."""
    examples: Positive
    """How many these are."""
    heldout: Positive
    """How many held-out examples the accuracy was measured on."""
    accuracy: Fraction
    """Fraction of the held-out examples whose class it finds."""
    classes: tuple[str, ...]
    """Their names, in the order of the labels."""
    size: tuple[Positive, Positive, Positive]
    """Height, width and channels of an image."""
    widths: tuple[Positive, ...]
    """Channels of each convolution; the last number is that of the features."""
    mean: float
    """Of all pixels, in grey levels, 0 to 255: images enter as (pixel - mean) / std."""
    std: PositiveFloat
    """In grey levels."""
    images: Positive
    """Length of training: examples seen, repetitions counted."""
    batch: Positive
    lr: PositiveFloat
    """Peak learning rate of AdamW."""
    weight_decay: Annotated[float, Interval(ge=0)]
    shift: Annotated[int, Interval(ge=0)]
    """Most pixels by which training moved images, in each direction."""
    seed: Annotated[int, Interval(ge=0)]
    torch_version: str
    weights: str
    """SHA-256 of NAME.safetensors."""

    def build(self) -> "Classifier":
        """Return the network of these sizes, with random weights."""
        return Classifier(self.size[2], self.widths, len(self.classes), self.mean, self.std)


class Classifier(nn.Module):
    """Convolutions of 3 x 3 with batch normalisation, each but the last followed by max pooling; then a mean over the
    image, the features, and a linear layer.

    ``widths``: channels of each convolution. ``mean`` and ``std`` normalise pixels.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], classes: int, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        inputs = (channels, *widths[:-1])
        pairs = zip(inputs, widths, strict=True)
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.last = nn.Linear(widths[-1], classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on a CPU

    def features(self, pixels: Rows) -> Tensor:
        """Return the features [B, F] of images uint8 [B, H, W, C]."""
        x = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            if number:
                x = nn.functional.max_pool2d(x, 2)
            x = norm(convolution(x)).relu()
        return x.mean((2, 3))

    def forward(self, pixels: Rows) -> Tensor:
        """Return the logits [B, K] of images uint8 [B, H, W, C]."""
        logits: Tensor = self.last(self.features(pixels))
        return logits


@dataclass(frozen=True, eq=False)
class ClassifierFeatures:
    """The features of a trained classifier, and its logits."""

    network: Classifier
    device: torch.device

    @torch.no_grad()
    def __call__(self, rows: Rows) -> Mapping[str, NDArray[Any]]:
        """Return float32 "features" [n, F] and "logits" [n, K] of images uint8 [n, H, W, C]."""
        features = self.network.features(rows.to(self.device))
        return {"features": features.cpu().numpy(), "logits": self.network.last(features).cpu().numpy()}


@dataclass(frozen=True, eq=False)
class ClassifierSpace:
    """Builds the space of the classifier in a file, for evaluation against ``data``."""

    path: Path
    data: Dataset

    def __call__(self, codec: Codec, shape: tuple[int, ...], device: torch.device) -> FeatureSpace:
        """Return the space. Raises DataError as `read_classifier` does, UsageError for a classifier of other data."""
        facts, network = read_classifier(self.path)
        height, width, channels = facts.size
        if codec.looks != "picture" or shape != (channels, height, width):
            theirs, ours = (" x ".join(map(str, each)) for each in ((channels, height, width), shape))
            raise UsageError(f"{self.path} classifies images of {theirs}, the model's examples are {ours}")
        other = self.data.class_names is not None and self.data.class_names != facts.classes
        if facts.data != self.data.name or other:
            theirs = f"{facts.data!r} ({len(facts.classes)} classes)"
            ours = f"{self.data.name!r} ({self.data.num_classes or 'no'} classes)"
            raise UsageError(f"{self.path} classifies {theirs}, and the reference is {ours}: train one on that data")
        network.to(device).eval()
        known = {"data": facts.data, "data_hash": facts.data_hash, "accuracy": facts.accuracy}
        return FeatureSpace("classifier", ClassifierFeatures(network, device), version=facts.weights, facts=known)


def classifier_space(codec: Codec, shape: tuple[int, ...], device: torch.device) -> FeatureSpace:
    """Raise UsageError: without a file there is no classifier."""
    raise UsageError(
        "features 'classifier' need a trained classifier: --classifier FILE, written by anystep data classifier"
    )


def facts_path(path: Path) -> Path:
    """Return the JSON file that describes a classifier's weights."""
    return path.with_suffix(".json")


def read_classifier(path: Path) -> tuple[ClassifierFacts, Classifier]:
    """Return a classifier and what is known about it.

    Raises DataError for a file that is missing, damaged, or not the one that the JSON file describes.
    """
    for file in (path, facts_path(path)):
        if not file.is_file():
            raise DataError(f"{file}: no such file; anystep data classifier writes a classifier and its description")
    content = path.read_bytes()
    try:
        facts = ClassifierFacts(**json.loads(facts_path(path).read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise DataError(f"{facts_path(path)}: describes no classifier ({reason(error)})") from error
    if hashlib.sha256(content).hexdigest() != facts.weights:
        raise DataError(f"{path}: not the weights that {facts_path(path).name} describes; train the classifier again")
    network = facts.build()
    try:
        network.load_state_dict(load(content))
    except (SafetensorError, RuntimeError) as error:
        raise DataError(f"{path}: not the weights of this classifier ({misfit(error)})") from error
    return facts, network
