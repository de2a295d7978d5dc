"""What `anystep train` prints before it trains: what is trained on what, for how long, and where it goes."""

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from anystep.cli.recipes import describe_network
from anystep.core.device import pick_device
from anystep.core.errors import UsageError
from anystep.data import Dataset
from anystep.recipes import find_recipe
from anystep.recipes.method import family_name
from anystep.run import checkpoint
from anystep.run.config import Config
from anystep.training.speed import Speed, measure
from anystep.training.trainer import decide_precision

#: seconds: for a run on a CPU that takes longer than LONG, there is a way to one of about SHORT
LONG, SHORT = 2 * 3600, 20 * 60


def print_header(config: Config, out: Path, say: Callable[[str], None]) -> None:
    """Say the lines of the block. Takes about two seconds. The config was checked against its data."""
    training, done = config.training, trained_steps(out)
    device, dataset = pick_device(training.device), config.data.open("train")
    config = decide_precision(config, device, out)
    speed = expected(config, dataset)
    seconds = speed.seconds * (1 - done / training.steps)
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" and torch.get_num_threads() > 1 else ""
    resumed = f", {done * training.batch:,} of them done" if done else ""
    lines = {
        "data": describe_data(dataset),
        "network": f"{describe_network(config.network)}, {speed.parameters:,} parameters",
        "training": f"{config.objective.name}, {training_images(config):,} images{resumed}",
        "time": f"about {duration(seconds)} ({device}{threads}, {config.training.precision})",
        "checkpoints": str(out / "checkpoints"),
    }
    if config.preview.num != 0:
        lines["previews"] = str(out / "previews")
    if device.type == "cpu" and seconds > LONG and not done:
        lines["shorter"] = f"about {duration(SHORT)} with {shorter(config, speed)}"
    for name, text in lines.items():
        say(f"{name:<11}  {text}")


def trained_steps(out: Path) -> int:
    """Return the updates that the newest checkpoint in ``out`` has, 0 without one."""
    found = checkpoint.listing(out / "checkpoints")
    return found[-1][0] if found else 0


def expected(config: Config, dataset: Dataset) -> Speed:
    """Return the time that a run takes here: measured quickly, and again for two seconds unless it is short."""
    quick = measure(config, dataset, within=0.2)
    return quick if quick.seconds < 30 else measure(config, dataset)


def describe_data(dataset: Dataset) -> str:
    """Return name, number, size and classes of the examples."""
    shape = " x ".join(map(str, dataset.read(np.zeros(1, np.int64)).shape[1:]))
    classes = f"{dataset.num_classes} classes" if dataset.num_classes else "no classes"
    features = ", ".join(f"{name} {list(dataset.conditions.entries[name].shape)}" for name in dataset.features)
    return f"{dataset.name}: {len(dataset):,} examples of {shape}, {classes}{', ' if features else ''}{features}"


def shorter(config: Config, speed: Speed) -> str:
    """Return what makes the run one of about 20 minutes on a CPU: the small recipe of its family, or fewer images."""
    try:
        small = find_recipe(f"{family_name(config)}32-{config.objective.name}")
    except UsageError:
        images = training_images(config) * SHORT / speed.seconds
        return f"--images {max(1, int(images / 1000)) * 1000}"
    return shlex.join(["anystep", "train", small.recipe, "--data.path", getattr(config.data, "path", "")])


def training_images(config: Config) -> int:
    """Return the images of the whole run."""
    return config.training.steps * config.training.batch


def duration(seconds: float) -> str:
    """Return a time in words: seconds, minutes, or hours and minutes."""
    if seconds < 100:
        return f"{max(1, round(seconds))} seconds"
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 100 else f"{round(seconds / 3600)} hours"
