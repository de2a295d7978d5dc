"""Matplotlib in the style of the report. It is imported only when a figure is drawn (extra `report`)."""

import io
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, FAINT = "#1c2430", "#697386", "#dfe3ea"
#: colours of lines that colour-blind readers can distinguish (after Okabe and Ito 2008)
SERIES = ("#0b6bcb", "#d9480f", "#0f9d76", "#a33ea1", "#b7860b", "#3aa5d8", "#c2255c", "#5c6b7a")
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
    "svg.hashsalt": "anystep",
}


def can_draw() -> bool:
    """Return whether matplotlib is installed, without importing it."""
    return find_spec("matplotlib") is not None


def panels(rows: int, columns: int, width: float = 9.6, height: float = 3.0, **sharing: Any) -> tuple["Figure", Any]:
    """Return a figure of ``rows`` x ``columns`` panels and the array of its axes.

    ``width`` of the figure and ``height`` of a row are in inches. Raises ImportError when matplotlib is missing.
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
    """Write a panel's title at its left and a quieter remark at its right."""
    axes.set_title(text, loc="left", fontsize=10.5, fontweight="bold", color=INK, pad=9)
    axes.set_title(aside, loc="right", fontsize=8.5, color=MUTED, pad=9)


def legend(axes: Any, **options: Any) -> None:
    """Add a legend without a frame to axes or a figure."""
    axes.legend(**{"frameon": False, "fontsize": 9, "labelcolor": INK, "handlelength": 1.3} | options)


def colour_scale(count: int) -> list[Any]:
    """Return colours from dark to light, for steps from small to large. All are visible on white and on black."""
    import matplotlib as mpl

    return [mpl.colormaps["viridis"](0.2 + 0.65 * n / max(1, count - 1)) for n in range(count)]


def to_image(figure: "Figure", dpi: int = 160) -> Image.Image:
    """Return the figure as an RGB image on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    with Image.open(buffer) as image:
        return image.convert("RGB")


def png(image: Image.Image) -> bytes:
    """Return the image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def to_svg(figure: "Figure", key: str) -> str:
    """Return the figure as an `<svg>` element without a background, coloured by the CSS variables of a page.

    ``key`` (letters and digits) is a prefix of every id, which makes ids unique on a page with several figures.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context(_STYLE):
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    text = buffer.getvalue()
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text[text.index("<svg") :]).replace("xlink:href", "href")
    text = re.sub(r'( id="| href="#|url\(#)', rf"\g<1>{key}-", text)
    for colour, variable in ((INK, "ink"), (MUTED, "muted"), (FAINT, "faint")):
        text = text.replace(colour, f"var(--{variable})")
    return text.strip()
