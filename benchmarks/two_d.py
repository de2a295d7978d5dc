"""Energy distances of `examples/two_d.py`, kept with commit and machine; the picture goes to docs/images.

python benchmarks/two_d.py
"""

import json
import shutil
import sys
import time
from pathlib import Path

from record import write

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from two_d import METHODS, compare

NUM = 2000


def main() -> None:
    out = Path("runs/benchmark/two_d")
    begun = time.perf_counter()
    scores = compare("eight_gaussians", None, NUM, out)
    seconds = time.perf_counter() - begun
    config = json.loads((out / METHODS[0] / "config.json").read_text())
    for method, row in scores.items():
        print(f"{method:<15}" + "".join(f"{value:9.4f}" for value in row.values()))
    pictures = Path("docs/images")
    pictures.mkdir(exist_ok=True)
    shutil.copy(out / "two_d.png", pictures / "two_d.png")
    protocol = {"data": "eight_gaussians, held-out draws", "num": NUM, "seed": 0, "training": config["training"]}
    write("two_d", protocol, {"seconds": round(seconds, 1), "energy_distance": scores})


if __name__ == "__main__":
    main()
