"""Training of the classifier whose features distances can be measured on, on one thread: the same bytes every time."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from anystep.codecs import Pixels, Rows
from anystep.core.errors import DataError
from anystep.core.fields import require
from anystep.core.files import write_bytes, write_text
from anystep.core.random import Keys
from anystep.data.base import Dataset
from anystep.data.order import batch_indices
from anystep.evaluation.features.classifier import Classifier, ClassifierFacts, facts_path

#: channels of the first convolutions; further ones have as many as the last
WIDTHS = (32, 64, 128)
#: the largest side that is not halved again, at least once
SMALLEST = 8
BATCH, LR, WEIGHT_DECAY = 64, 3e-3, 0.05
#: passes over the data, and the fewest and most images
PASSES, FEWEST, MOST = 4, 60_000, 400_000
#: of a side: most by which an image is moved
SHIFT = 1 / 16
#: images that are classified at a time
MANY = 256


def usual_images(examples: int) -> int:
    """Return the length of training on a data set of this size."""
    return min(max(PASSES * examples, FEWEST), MOST)


def train_classifier(
    train: Dataset,
    heldout: Dataset,
    path: Path,
    *,
    images: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ClassifierFacts:
    """Train a classifier of ``train``, write it to ``path``, NAME.safetensors, and NAME.json; return what that holds.

    ``images``: examples seen, by default 4 passes, at least 60,000 and at most 400,000. The accuracy is that on
    ``heldout``. ``progress(done, total)`` counts images. Raises UsageError for another file name, DataError for data
    that is not images with two classes or more, OSError.
    """
    check_name(path)
    codec, names = train.codec, train.class_names
    if not isinstance(codec, Pixels):
        raise DataError(f"{train.name}: a classifier needs images, and these examples have the codec {codec.name}")
    if names is None or len(names) < 2:
        raise DataError(f"{train.name}: a classifier needs two classes or more, and this data has {len(names or ())}")
    fitted = codec.fit(train)
    height, width, channels = fitted.size
    halvings = max(1, math.ceil(math.log2(max(height, width) / SMALLEST)))
    widths = tuple(WIDTHS[min(number, len(WIDTHS) - 1)] for number in range(halvings + 1))
    if min(height, width) < 2**halvings:
        raise DataError(f"{train.name}: images of {width} x {height} pixels are too narrow for a classifier")
    total = images or usual_images(len(train))
    keys = Keys(seed)
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(keys.torch_seed(0, "classifier"))
        network = Classifier(channels, widths, len(names), fitted.mean, fitted.std)
        shift = round(max(height, width) * SHIFT)
        fit(network, train, total, shift, keys, progress or (lambda done, total: None))
        accuracy = measure_accuracy(network, heldout)
    content = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    facts = ClassifierFacts(
        data=train.name,
        data_hash=train.fingerprint,
        examples=len(train),
        heldout=len(heldout),
        accuracy=accuracy,
        classes=names,
        size=fitted.size,
        widths=widths,
        mean=fitted.mean,
        std=fitted.std,
        images=total,
        batch=BATCH,
        lr=LR,
        weight_decay=WEIGHT_DECAY,
        shift=shift,
        seed=seed,
        torch_version=torch.__version__,
        weights=hashlib.sha256(content).hexdigest(),
    )
    write_bytes(path, content)
    write_text(facts_path(path), json.dumps(asdict(facts), indent=2) + "\n")
    return facts


def check_name(path: Path) -> None:
    """Raise UsageError for a file of weights with another ending."""
    require(path.suffix == ".safetensors", "the file of a classifier", str(path), "NAME.safetensors")


def fit(
    network: Classifier, train: Dataset, images: int, shift: int, keys: Keys, progress: Callable[[int, int], None]
) -> None:
    """Minimise the cross-entropy with AdamW; the learning rate rises over a tenth of the updates, then falls to 0."""
    assert train.labels is not None  # checked by the caller
    network.train()
    updates = math.ceil(images / BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), LR, weight_decay=WEIGHT_DECAY)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=updates + 1, pct_start=0.1)
    for update in range(updates):
        index = batch_indices(len(train), BATCH, update, keys)
        pixels = moved(train.read(index), shift, keys.words(update, "shift", 2))
        loss = nn.functional.cross_entropy(network(pixels), torch.from_numpy(train.labels[index]))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        rate.step()
        progress(min((update + 1) * BATCH, images), images)


def moved(pixels: Rows, shift: int, words: Any) -> Tensor:
    """Return images [B, H, W, C] moved by up to ``shift`` pixels in each direction, all alike; edges are repeated."""
    _, height, width, _ = pixels.shape
    down, right = (int(word % (2 * shift + 1)) - shift for word in words)
    rows = (torch.arange(height) + down).clamp(0, height - 1)
    columns = (torch.arange(width) + right).clamp(0, width - 1)
    return pixels[:, rows][:, :, columns]


@torch.no_grad()
def measure_accuracy(network: Classifier, data: Dataset) -> float:
    """Return the fraction of examples whose class a network finds."""
    assert data.labels is not None
    network.eval()
    right = 0
    for start in range(0, len(data), MANY):
        index = np.arange(start, min(start + MANY, len(data)))
        right += int((network(data.read(index)).argmax(1).numpy() == data.labels[index]).sum())
    return right / len(data)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: sums are then always added in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
