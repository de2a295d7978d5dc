"""What `anystep train` prints before it trains: what is trained on what, for how long, and where it goes."""

import shlex
from collections.abc import Callable
from pathlib import Path

import torch

from anystep.cli.recipes import describe_examples, describe_network
from anystep.core.errors import UsageError, counted
from anystep.data import Dataset
from anystep.recipes import find_recipe
from anystep.recipes.method import family_name
from anystep.run.config import Config
from anystep.training.speed import Speed, measure

#: seconds: for a run on a CPU that takes longer than LONG, there is a way to one of about SHORT
LONG, SHORT = 2 * 3600, 20 * 60


def print_header(out: Path, say: Callable[[str], None], config: Config, dataset: Dataset, done: int) -> None:
    """Say the lines of the block; takes about two seconds. ``done``: updates that the run has made before."""
    training, speed = config.training, expected(config, dataset)
    seconds = speed.seconds * (1 - done / training.steps)
    on_cpu = speed.device == "cpu"
    threads = f", {torch.get_num_threads()} threads" if on_cpu and torch.get_num_threads() > 1 else ""
    resumed = f", {done * training.batch:,} of them done" if done else ""
    features = [f"{name} {list(dataset.conditions.entries[name].shape)}" for name in dataset.features]
    about = ", ".join([f"{counted(len(dataset), 'example')} of {describe_examples(dataset)}", *features])
    lines = {
        "data": f"{dataset.name}: {about}",
        "network": f"{describe_network(config.network)}, {speed.parameters:,} parameters",
        "training": f"{config.objective.name}, {training_images(config):,} images{resumed}",
        "time": f"about {duration(seconds)} ({speed.device}{threads}, {training.precision})",
        "checkpoints": str(out / "checkpoints"),
    }
    if config.preview.num != 0:
        lines["previews"] = str(out / "previews")
    if on_cpu and seconds > LONG and not done:
        lines["shorter"] = f"about {duration(SHORT)} with {shorter(config, speed)}"
    for name, text in lines.items():
        say(f"{name:<11}  {text}")


def expected(config: Config, dataset: Dataset) -> Speed:
    """Return the time that a run takes here: measured quickly, and again for two seconds unless it is short."""
    quick = measure(config, dataset, within=0.2)
    return quick if quick.seconds < 30 else measure(config, dataset)


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
        return counted(max(1, round(seconds)), "second")
    minutes = round(seconds / 60)
    return counted(minutes, "minute") if minutes < 100 else counted(round(seconds / 3600), "hour")
