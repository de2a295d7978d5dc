"""A folder with small stand-ins for the data and the runs that the pages name."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.docs.pages import DIT, SMALL

from anystep.cli.main import main
from anystep.training.speed import measure


def train(words: str) -> None:
    assert main(["train", *words.split()]) == 0, words


def write_data(place: Path) -> None:
    """Write a folder of images with two classes, arrays of images and of vectors, a table, and features."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(40, 32, 32, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        folder = place / "pictures" / ("cats", "dogs")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    labels = np.arange(40) % 2
    np.savez(place / "images.npz", images=pixels, labels=labels)
    np.savez(place / "fashion_mnist.npz", train_images=pixels[..., 0], train_labels=labels)
    files = [path.read_bytes() for path in sorted((place / "pictures").rglob("*.png"))]
    offsets = np.cumsum([0, *map(len, files)])
    joined = np.frombuffer(b"".join(files), np.uint8)
    np.savez(place / "imagenette64.npz", train_jpeg=joined, train_offsets=offsets, train_labels=labels)
    vectors = rng.normal(size=(64, 4)).astype(np.float32)
    state, goal = rng.normal(size=(64, 3)), rng.normal(size=(64, 2))
    np.savez(place / "vectors.npz", vectors=vectors, state=state, goal=goal)
    np.savez(place / "given.npz", state=state[:3], goal=goal[:3])


def write_table(place: Path) -> None:
    """Write the images and classes of `write_data` as parquet, if the extra that reads it is installed."""
    try:
        import datasets
    except ImportError:
        return
    with np.load(place / "images.npz") as arrays:
        images, labels = [Image.fromarray(image) for image in arrays["images"]], arrays["labels"].tolist()
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["cats", "dogs"]))
    table = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
    table.to_parquet(place / "data.parquet")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data and the runs that pages take for granted."""
    place = tmp_path_factory.mktemp("world")
    write_data(place)
    write_table(place)
    runs = place / "runs"
    short = "--images 320 --batch 64"
    train(f"digits-shortcut {DIT} {short} --ema.profiles 0.05 0.1 --ema.profile-every 64 --out {runs}/digits")
    train(f"digits-flow_matching {DIT} {short} --out {runs}/flow")
    train(f"digits-shortcut {DIT} {short} --out {runs}/shortcut")
    train(
        f"folder32-shortcut {DIT} --images 128 --batch 64 --data.path {place}/pictures --data.size 8 --out {runs}/mine"
    )
    data = f"--data.path {place}/vectors.npz --data.labels None --data.conditions state goal"
    train(f"vectors-shortcut {SMALL} --images 128 --batch 64 {data} --out {runs}/robot")
    return place


@pytest.fixture
def here(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `world` that is the working folder."""
    place = Path(shutil.copytree(world, tmp_path / "here"))
    monkeypatch.chdir(place)
    monkeypatch.setenv("ANYSTEP_CACHE", str(world / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("anystep.cli.train.print_header", lambda *_: None)  # it measures the machine
    monkeypatch.setattr("anystep.cli.recipes.measure", lambda *about: measure(*about, within=0.1))
    return place
