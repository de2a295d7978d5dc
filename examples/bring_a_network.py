"""Bring a network of your own.

    python examples/bring_a_network.py [FOLDER]

Any torch module whose forward(x, t, d, condition, guidance) returns a velocity shaped like x can be trained and
sampled. A frozen dataclass with a method `build` describes it to a run, so that other processes can build it again.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

import anystep
from anystep.flow.condition import Condition, ConditionSpec


class Net(nn.Module):
    """A plain MLP on flattened images, with t, d and the class as further inputs."""

    def __init__(self, shape: tuple[int, ...], conditions: ConditionSpec, width: int) -> None:
        super().__init__()
        self.conditions, size = conditions, torch.Size(shape).numel()
        self.label = nn.Embedding((conditions.num_classes or 0) + 1, 16)  # the last one means "no class"
        self.layers = nn.Sequential(nn.Linear(size + 18, width), nn.SiLU(), nn.Linear(width, size))

    def null(self, condition: Condition) -> Condition:
        """Return "nothing given", for guidance and for dropped labels."""
        return self.conditions.null(condition)

    def forward(self, x: Tensor, t: Tensor, d: Tensor, condition: Condition = None, guidance: object = None) -> Tensor:
        """Return the average velocity from t to t + d."""
        label = self.conditions.class_label(self.conditions.nothing(len(x)) if condition is None else condition)
        inputs = [x.flatten(1), t[:, None], d[:, None], self.label(label)]
        return self.layers(torch.cat(inputs, 1)).reshape(x.shape)


@dataclass(frozen=True)
class NetConfig(anystep.NetworkConfig):
    """The network and its size."""

    width: int = 128
    """Number of hidden units."""

    def build(self, shape: tuple[int, ...], conditions: ConditionSpec, M: int = 128) -> nn.Module:
        """Return the network for examples of this shape."""
        return Net(shape, conditions, self.width)


if __name__ == "__main__":
    run = Path(*sys.argv[1:] or [tempfile.mkdtemp()]).resolve() / "own_network"
    config = replace(anystep.find_recipe("digits-shortcut"), network=NetConfig())
    anystep.train(replace(config, training=replace(config.training, images=1_280, device="cpu")), run)
    sample = [sys.executable, "-m", "anystep", "sample", str(run), "--steps", "1", "4", "--import", "bring_a_network"]
    subprocess.run(sample, check=True, cwd=Path(__file__).parent)
