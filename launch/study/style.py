"""Look of the figures of a study: colours that the colour-blind tell apart, and marks that tell apart in grey too."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fume_jax.runtime.files import replacing

# Okabe and Ito, https://jfly.uni-koeln.de/color/, without black and yellow, which is too light for lines on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MAIN_COLOR, OTHER_COLOR, INK, FAINT = "#D55E00", "#56B4E9", "#222222", "#BBBBBB"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")
DASHES = ("-", "--", "-.", ":")
MAIN_HATCH = "////"
FORMATS = ("svg", "pdf", "png")
# One column of text on a page is so wide in inches.
WIDTH = 7.0
_RC = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "hatch.linewidth": 0.6,
    "pdf.fonttype": 42,  # letters stay text that can be searched
    "svg.hashsalt": "fume",  # the same figure is the same file
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draws and saves in this style."""
    with matplotlib.rc_context(_RC):
        yield


def create_figure(height: float, rows: int = 1, columns: int = 1, **options) -> tuple[Figure, Sequence[Axes]]:
    """Creates a figure as wide as a page and a grid of axes, row by row; `options` are those of `Figure.subplots`."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options).ravel()


def save(figure: Figure, folder: Path, name: str) -> None:
    """Writes a figure in all `FORMATS`, 200 dots an inch."""
    for suffix in FORMATS:
        # Without the date, the same figure is the same file.
        undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[suffix]
        with replacing(folder / f"{name}.{suffix}") as part:
            figure.savefig(part, format=suffix, dpi=200, metadata=undated, facecolor="white")


def look(index: int) -> dict[str, str]:
    """Returns colour and marker of the entry of an index; no two of the first 66 are alike."""
    return {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)]}
