"""How every figure looks, how it becomes a file, and how its arrays are checked."""

from collections.abc import Callable, Sequence
from functools import wraps
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]

MAX_LEGEND = 12
MAX_PANELS = 12
# Blue is the model or what passes, red the data or what does not; a dash, a marker or a word always shows it too.
BLUE, RED, GREY, INK = "#1b6ca8", "#c1440e", "#8a8f94", "#222426"
# Petroff 2021, Accessible color sequences for data visualization, table 1 (ten colours). arXiv:2107.02270
CLASSES = ("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd")

_DPI = 120
_DPI_PAGE = 192
_SVG_BYTES = 160_000

STYLE: dict[str, Any] = {
    # What is not said below is matplotlib's own default, whatever a caller's style or settings file has made of it.
    **{key: mpl.rcParamsDefault[key] for key in mpl.rcParamsDefault if not key.startswith("backend")},
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so that a picture is the same on every machine
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "figure.titlesize": 10.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.edgecolor": "#55585c",
    "axes.labelcolor": INK,
    "xtick.color": "#55585c",
    "ytick.color": "#55585c",
    "text.color": INK,
    "grid.color": "#55585c",
    "grid.alpha": 0.2,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "image.interpolation": "nearest",
    "svg.fonttype": "path",
    "svg.hashsalt": "vae_pyro",  # ids inside an SVG are random without it
}


def styled[**P](draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in the style of this package, whatever the caller's is, and leave the caller's as it was."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    from vae_pyro.core.files import atomically

    FigureCanvasAgg(figure)
    with atomically(path) as temporary, mpl.rc_context(STYLE):
        figure.savefig(temporary, dpi=_DPI, format="png", metadata={"Software": None})


def encode(figure: Figure) -> tuple[str, bytes]:
    """A figure as the bytes of a picture: SVG where it is small and holds no raster, else PNG at 192 dots an inch.

    The same figure gives the same bytes.

    Returns:
        Media type, ``image/svg+xml`` or ``image/png``, and content.
    """
    with mpl.rc_context(STYLE):
        if not any(axes.images for axes in figure.axes):
            content = BytesIO()
            FigureCanvasSVG(figure)
            figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
            if content.tell() <= _SVG_BYTES:
                return "image/svg+xml", content.getvalue()
        content = BytesIO()
        FigureCanvasAgg(figure)
        figure.savefig(content, format="png", dpi=_DPI_PAGE, metadata={"Software": None})
        return "image/png", content.getvalue()


def numbers(name: str, values: Any, *dims: str, finite: bool = True) -> Array:
    """``values`` as float64 with the dimensions named, or an error that gives what was passed."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != len(dims) or array.size == 0:
        raise ValueError(f"{name} of shape ({', '.join(dims)}), none of them 0, required; got {array.shape}")
    bad = np.isnan(array) if not finite else ~np.isfinite(array)
    if bad.any():
        raise ValueError(f"{name} holds {int(bad.sum())} values that are {'not finite' if finite else 'NaN'}")
    return array


def same_size(name: str, array: Array, size: int, of: str) -> None:
    """Refuse an array whose last dimension does not match."""
    if array.shape[-1] != size:
        raise ValueError(f"{name} has {array.shape[-1]} entries, {of} has {size}; they belong together one by one")


def names_of(names: Sequence[str] | None, count: int, stem: str = "z") -> list[str]:
    """Names given, or ``z[0], z[1], ...``."""
    if names is None:
        return [f"{stem}[{i}]" for i in range(count)]
    if len(names) != count:
        raise ValueError(f"{len(names)} names for {count} curves or panels; give one each")
    return [str(name) for name in names]


def small_multiples(
    count: int, width: float, height: float, *, columns: int = 4, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Any]]:
    """A figure with one panel for each of ``count`` things, so many inches each, at most so many in a row."""
    columns = min(columns, count)
    rows = ceil(count / columns)
    size = (max(width * columns, 4.4), (height if count > 1 else 1.3 * height) * rows + 0.35)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey).ravel()
    for axes in grid[count:]:
        axes.set_axis_off()
    if sharex:  # the panels above an empty place are the lowest of their columns
        for axes in grid[max(count - columns, 0) : count]:
            axes.tick_params(labelbottom=True)
    return figure, list(grid[:count])
