"""Where examples come from: built-in sets, folders, .npz files, parquet and hub sets; and the stateless order.

Images stay uint8 until the batch. `SOURCES` is the one registry: a source is a frozen dataclass that opens as a
`Dataset`.
"""

from anystep.data.base import Dataset, Split, split
from anystep.data.digits import Digits
from anystep.data.folder import Folder
from anystep.data.hub import Hub
from anystep.data.image_source import ImageSource
from anystep.data.npz import Npz
from anystep.data.order import batch_indices
from anystep.data.planar import Checkerboard, EightGaussians, TwoMoons
from anystep.data.source import Source

_ALL: tuple[type[Source], ...] = (Digits, TwoMoons, EightGaussians, Checkerboard, Folder, Npz, Hub)
SOURCES: dict[str, type[Source]] = {source.name: source for source in _ALL}

__all__ = [
    "SOURCES",
    "Checkerboard",
    "Dataset",
    "Digits",
    "EightGaussians",
    "Folder",
    "Hub",
    "ImageSource",
    "Npz",
    "Source",
    "Split",
    "TwoMoons",
    "batch_indices",
    "split",
]
