"""Draws a predicted recording over time as RGB uint8 [H, W, 3]."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fume_jax.evaluation.overlays import CLASS_COLORS, GAS_COLORS
from fume_jax.schema import CLASSES

# The most values side by side in a timeline: about one per pixel.
COLUMNS = 1000
LEGEND_BESIDE = {"fontsize": "small", "loc": "upper left", "bbox_to_anchor": (1, 1), "frameon": False}


def timeline_chart(
    times: np.ndarray, probabilities: np.ndarray | None, areas: Mapping[str, np.ndarray], *, unit: str
) -> np.ndarray:
    """Draws the predictions of a recording over time: stacked probabilities of the classes above areas of gas.

    With more than `COLUMNS` frames, each column shows the mean of consecutive frames, and for areas the minimum and
    maximum too, so that a short puff does not vanish.

    Args:
      times: times of the frames, float or int [N] with N >= 1, increasing.
      probabilities: float [N, 3], NaN for a frame without class; None if the model does not classify.
      areas: share of the frame that is gas, float [N] by gas, NaN if the gas is absent; empty if the model does not
        segment.
      unit: unit of the times, `s` for seconds or `frame` for frame numbers.

    Raises ValueError if there are neither probabilities nor areas.
    """
    rows = (probabilities is not None) + bool(areas)
    if not rows:
        raise ValueError("a timeline needs probabilities or areas")
    columns = min(len(times), COLUMNS)
    starts = np.arange(columns) * len(times) // columns
    edges = _edges(np.asarray(times, float))[[*starts, len(times)]]
    figure, all_axes = create_figure(10, 0.6 + 2.2 * rows, rows=rows)
    if probabilities is not None:
        _stack_probabilities(all_axes[0], edges, [_means(values, starts) for values in probabilities.T])
    if areas:
        _draw_areas(all_axes[-1], edges, areas, starts)
    for axes in all_axes:
        axes.grid(alpha=0.3)
    axes.set(xlim=(edges[0], edges[-1]), xlabel="time in s" if unit == "s" else unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=unit == "frame", min_n_ticks=1))
    return render(figure)


def _stack_probabilities(axes, edges, probabilities):
    below = 0
    for name, color, values in zip(CLASSES, CLASS_COLORS, probabilities, strict=True):
        axes.stairs(below + values, edges, baseline=below, fill=True, color=np.divide(color, 255), label=name)
        below = below + values
    axes.set(ylim=(0, 1), ylabel="probability")
    axes.legend(**LEGEND_BESIDE, reverse=True)


def _draw_areas(axes, edges, areas, starts):
    for gas, values in areas.items():
        least, most = np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)
        color = np.divide(GAS_COLORS[gas], 255)
        axes.stairs(most, edges, baseline=least, fill=True, color=color, alpha=0.35)
        means = _means(values, starts)
        axes.stairs(means, edges, baseline=None, color=color, linewidth=1.5, label=gas.upper(), zorder=3)
    highest = np.fmax.reduce([1e-3, *map(np.fmax.reduce, areas.values())])
    axes.set(ylim=(0, 1.1 * highest), ylabel="gas, share of the frame")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(**LEGEND_BESIDE)


def _edges(times):
    """Returns edges [N + 1] between frames: halfway between neighbours, and as far on the outer sides."""
    steps = np.diff(times) if len(times) > 1 else np.ones(1)
    return np.concatenate([[times[0] - steps[0] / 2], (times[1:] + times[:-1]) / 2, [times[-1] + steps[-1] / 2]])


def _means(values, starts):
    """Returns means, without NaN, of the ranges of values that begin at `starts`; NaN if a range has no number."""
    known = ~np.isnan(values)
    count = np.add.reduceat(known, starts, dtype=int)
    sums = np.add.reduceat(np.where(known, values, 0), starts)
    return np.where(count > 0, sums / np.maximum(count, 1), np.nan)


def create_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """Creates a figure of that size in inches, and its axes, row by row."""
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharex="col").ravel()


def render(figure: Figure) -> np.ndarray:
    """Returns the pixels of a figure, RGB uint8 [H, W, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
