"""Write the images of the source `emoji`, `src/anystep/data/files/emoji.npz`.

The input is an .npz of emoji at 32 x 32 pixels with the arrays images, labels, style and classes, as the notice beside
the output describes it. Kept are the images of style 0, Noto, in their order. The same input gives the same bytes, with
the same release of liblzma.

    python benchmarks/package_emoji.py emoji32.npz
"""

import argparse
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np

OUT = Path(__file__).parents[1] / "src" / "anystep" / "data" / "files" / "emoji.npz"
NOTO = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the .npz of all styles")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    with np.load(args.source, allow_pickle=False) as arrays:
        noto = arrays["style"] == NOTO
        kept = {"images": arrays["images"][noto], "labels": arrays["labels"][noto], "classes": arrays["classes"]}
    # LZMA finds what emoji have in common, which deflate's window is too short for: 2.0 MB in place of 2.6 MB
    with zipfile.ZipFile(args.out, "w", zipfile.ZIP_LZMA) as file:
        for name, array in kept.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980, so that the bytes do not depend on the day
            file.writestr(entry, content.getvalue(), zipfile.ZIP_LZMA)
    content = args.out.read_bytes()
    print(f"{args.out}: {noto.sum():,} images, {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
