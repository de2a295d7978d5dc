"""A model whose samples are its noise."""

import torch
from torch import Tensor, nn

from anystep.data import Dataset
from anystep.model.generator import Generator
from anystep.objectives import Shortcut


class Still(nn.Module):
    """No velocity: a sample is its noise."""

    def forward(self, x: Tensor, t: Tensor, d: Tensor, condition: object = None, guidance: object = None) -> Tensor:
        return torch.zeros_like(x)


def noise_of(data: Dataset) -> Generator:
    """Return the generator of noise of the data's shape."""
    codec = data.codec.fit(data)
    return Generator(Still(), Shortcut(), codec, codec.shape())
