"""The figure of docs/methods/one_step.md: each lever's distance over the number of steps, of results/one_step_SET.json.

python benchmarks/one_step_figure.py digits
"""

import argparse
import json
import statistics
from pathlib import Path

from anystep.figures.canvas import MUTED, SERIES, legend, panels, title, to_image
from record import RESULTS

IMAGES = Path(__file__).parents[1] / "docs" / "images"
#: from the method as published to the recipe, a lever at a time
SHOWN = ("paper", "ot", "weight", "all", "default")


def draw(name: str) -> Path:
    """Draw the runs of the recipe's length, those that judge where every variant has them, and return the file."""
    results = json.loads((RESULTS / f"one_step_{name}.json").read_text())
    rows = [row for row in results["results"]["summary"] if row["length"] == 1 and row["variant"] in SHOWN]
    judged = [row for row in rows if not row["trial"]]
    rows = judged if {row["variant"] for row in judged} == set(SHOWN) else [row for row in rows if row["trial"]]
    figure, ((axes,),) = panels(1, 1, width=7.2, height=4.2)
    floor = statistics.mean(row["frechet_floor"] for row in rows)
    axes.axhline(floor, color=MUTED, linestyle=(0, (2, 2)), linewidth=1.2, label="floor")
    for colour, variant in zip(SERIES, SHOWN, strict=False):
        line = sorted((row["steps"], row["frechet"]) for row in rows if row["variant"] == variant)
        width = 2.2 if variant == "default" else 1.4
        axes.plot(*zip(*line, strict=True), marker="o", ms=4, color=colour, linewidth=width, label=variant)
    steps = sorted({row["steps"] for row in rows})
    axes.set(xscale="log", yscale="log", xlabel="sampling steps, fewer to the right", ylabel="Frechet distance")
    axes.set_xticks(steps, [str(step) for step in steps])
    axes.tick_params(axis="x", which="minor", bottom=False)
    axes.invert_xaxis()
    ticks = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.tick_params(axis="y", which="minor", left=False, labelleft=False)
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    title(
        axes, f"{name}, equal compute", f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    )
    legend(axes)
    path = IMAGES / f"one_step_{name}.png"
    to_image(figure).save(path, optimize=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "set", choices=[path.stem.removeprefix("one_step_") for path in RESULTS.glob("one_step_*.json")]
    )
    print(draw(parser.parse_args().set).relative_to(IMAGES.parents[1]))


if __name__ == "__main__":
    main()
