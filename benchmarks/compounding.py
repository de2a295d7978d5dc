"""Proposition 1 of iSM in a figure: how guidance in targets grows over the levels of the ladder. Nothing is trained.

python benchmarks/compounding.py
"""

import sys
from pathlib import Path

import numpy as np

from anystep.figures.canvas import INK, MUTED, SERIES, panels, title, to_image
from record import write

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.paper.compounding import LEVELS, Field, M, affine, clusters, ratios

SCALE = 1.5
ROWS = 4096
STDS = (1.0, 0.5, 0.2)


def tabulated() -> dict[str, dict[str, list[float]]]:
    """Return the ratios of every field by rule, for steps from 2/M to 1."""
    plane, line = (np.random.default_rng(0).normal(size=(ROWS, axes)) for axes in (2, 1))
    fields: dict[str, tuple[Field, np.ndarray]] = {"affine": (affine, plane)}
    fields |= {f"clusters, std {std:g}": (clusters(std), line) for std in STDS}
    return {
        name: {rule: ratios(field, SCALE, rule, x) for rule in ("all", "finest", "intrinsic")}
        for name, (field, x) in fields.items()
    }


def draw(table: dict[str, dict[str, list[float]]], path: Path) -> None:
    figure, ((every, once),) = panels(1, 2, height=3.6, sharey=True)
    steps = range(1, LEVELS + 1)
    for number, (name, rules) in enumerate(table.items()):
        colour = INK if name == "affine" else SERIES[number - 1]
        for axes, rule in ((every, "all"), (once, "finest")):
            axes.plot(steps, rules[rule], color=colour, marker="o", markersize=4.2, linewidth=1.7)
        last = table[name]["all"][-1]
        every.annotate(f"{name}: {last:.1f}", (LEVELS, last), (9, 0), textcoords="offset points", color=colour,
                       fontsize=9, va="center", annotation_clip=False)  # fmt: skip
    title(every, "Guided at every level")
    title(once, "At the finest level, or W as an input")
    for axes in (every, once):
        axes.axhline(SCALE, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_yscale("log", base=SCALE)
        axes.set_yticks([SCALE**k for k in range(8)], [f"{SCALE**k:.3g}" for k in range(8)])
        axes.set_ylim(0.9, 22)
        axes.set_xticks(steps, [f"1/{M >> k}" if k < LEVELS else "1" for k in steps])
        axes.minorticks_off()
        axes.set_xlabel("step d")
    every.set_ylabel("label - null, times that without guidance")
    path.parent.mkdir(exist_ok=True)
    to_image(figure).save(path)
    print(path)


def main() -> None:
    table = tabulated()
    for name, rules in table.items():
        for rule, values in rules.items():
            print(f"{name:<18} {rule:<10}" + "".join(f"{value:9.4f}" for value in values))
    draw(table, Path("docs/images/compounding.png"))
    protocol = {"scale": SCALE, "M": M, "steps": [2.0**k / M for k in range(1, LEVELS + 1)], "rows": ROWS, "t": 0}
    write("compounding", protocol, table)


if __name__ == "__main__":
    main()
