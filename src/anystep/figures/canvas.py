"""Matplotlib in the report's style. It is imported here and only when a figure is drawn (extra `report`)."""

import io
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, FAINT = "#1c2430", "#697386", "#dfe3ea"
#: one colour a line, told apart by people who do not see red and green too (after Okabe and Ito 2008)
SERIES = ("#0b6bcb", "#d9480f", "#0f9d76", "#a33ea1", "#b7860b", "#3aa5d8", "#c2255c", "#5c6b7a")
#: from small steps to large ones
LADDER_MAP = "viridis"
MISSING = "figures need matplotlib: pip install -e '.[report]' in the checkout"

_STYLE: Any = {
    "font.size": 9.5,
    "font.family": "sans-serif",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "svg.fonttype": "path",
}


def can_draw() -> bool:
    """Tell whether figures can be drawn here, without importing matplotlib."""
    return find_spec("matplotlib") is not None


def panels(rows: int, columns: int, width: float = 9.6, height: float = 3.0, **sharing: Any) -> tuple["Figure", Any]:
    """Return a figure of ``rows`` x ``columns`` panels, ``width`` inches wide and ``height`` a row, and its axes array.

    Raises ImportError that says what to install when matplotlib is missing.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise ImportError(MISSING) from error
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height * rows), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
        axes = figure.subplots(rows, columns, squeeze=False, **sharing)
    return figure, axes


def title(axes: Any, text: str, aside: str = "") -> None:
    """Write a panel's title at its left and, quieter, an aside at its right."""
    axes.set_title(text, loc="left", fontsize=10.5, fontweight="bold", color=INK, pad=9)
    if aside:
        axes.set_title(aside, loc="right", fontsize=8.5, color=MUTED, pad=9)


def legend(axes: Any, **place: Any) -> None:
    """Name the lines, in ink and without a box."""
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, handlelength=1.3, labelspacing=0.35, **place)


def picture(figure: "Figure", dpi: int = 160) -> Image.Image:
    """Return the figure as an RGB image on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    with Image.open(buffer) as image:
        return image.convert("RGB")


def svg(figure: "Figure", key: str) -> str:
    """Return the figure as an `<svg>` element for a page: no background, and ink in the page's CSS variables.

    ``key`` (letters and digits) begins every id, so that the figures of a page stay apart. Nothing in it refers to
    another file.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context(_STYLE | {"svg.hashsalt": "anystep"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'(<svg[^>]*?) width="[^"]*pt"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*pt"', r"\1", text))
    text = re.sub(r' id="(?:figure|axes|patch|line2d|text|xtick|ytick|matplotlib\.axis|legend)_\d+"', "", text)
    text = re.sub(r'( id="| href="#|url\(#)', rf"\g<1>{key}-", text)
    for colour, variable in ((INK, "ink"), (MUTED, "muted"), (FAINT, "faint")):
        text = text.replace(colour, f"var(--{variable})")
    return text.strip()
