import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anystep.data.base import Dataset, select_split

Save = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a cache of its own."""
    place = tmp_path / "cache"
    monkeypatch.setenv("ANYSTEP_CACHE", str(place))
    return place


def both(dataset: Dataset, heldout: float) -> list[Dataset]:
    """Return the examples to train on and those held out."""
    return [select_split(dataset, heldout, which) for which in ("train", "heldout")]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "pictures"
    place.mkdir()
    return place


@pytest.fixture
def save(folder: Path, rng: np.random.Generator) -> Save:
    """Write a picture of random pixels, or of those given, below ``folder`` and return its path."""

    def write(name: str, pixels: np.ndarray | None = None, shape: tuple[int, ...] = (8, 8, 3), **options) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(256, size=shape, dtype=np.uint8) if pixels is None else pixels
        Image.fromarray(pixels).save(path, **options)
        return path

    return write


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    """Return an image as the bytes of a file."""

    def encode(image: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return encode
