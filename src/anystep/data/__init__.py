"""Where examples come from: built-in sets, folders, .npz files, parquet and hub sets; and the order of training.

Images stay uint8 until the batch. A source is a frozen dataclass that opens as a `Dataset`. `SOURCES` is the registry:
it imports a source's file when it is first used.
"""

from typing import TYPE_CHECKING, Any

from anystep.core.registry import Registry
from anystep.data.base import Dataset as Dataset
from anystep.data.order import batch_indices as batch_indices
from anystep.data.source import Source as Source

if TYPE_CHECKING:
    from anystep.data.digits import Digits as Digits
    from anystep.data.emoji import Emoji as Emoji
    from anystep.data.folder import Folder as Folder
    from anystep.data.hub import Hub as Hub
    from anystep.data.npz import Npz as Npz
    from anystep.data.planar import Checkerboard as Checkerboard
    from anystep.data.planar import EightGaussians as EightGaussians
    from anystep.data.planar import TwoMoons as TwoMoons

SOURCES: Registry[type[Source]] = Registry(
    {
        "digits": "anystep.data.digits:Digits",
        "emoji": "anystep.data.emoji:Emoji",
        "two_moons": "anystep.data.planar:TwoMoons",
        "eight_gaussians": "anystep.data.planar:EightGaussians",
        "checkerboard": "anystep.data.planar:Checkerboard",
        "folder": "anystep.data.folder:Folder",
        "npz": "anystep.data.npz:Npz",
        "hub": "anystep.data.hub:Hub",
    }
)


def __getattr__(name: str) -> Any:
    return SOURCES.attribute(__name__, name)
