"""Draws charts as RGB uint8 [H, W, 3]."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fume_jax.evaluation.overlays import CLASS_COLORS, GAS_COLORS
from fume_jax.learning.calibration import reliability, risk_coverage
from fume_jax.learning.metrics import HEADLINES
from fume_jax.schema import CLASSES, GASES, MASK_CLASSES

# The most values side by side in a timeline: about one per pixel.
COLUMNS = 1000
LEGEND_BESIDE = {"fontsize": "small", "loc": "upper left", "bbox_to_anchor": (1, 1), "frameon": False}


def confusion_chart(confusion: np.ndarray) -> np.ndarray:
    """Draws the confusion matrix of the pH classes, int [3, 3], truth in rows."""
    figure, (axes,) = _figure(4.2, 3.8)
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), n in np.ndenumerate(confusion):
        axes.text(j, i, f"{n}\n{share[i, j]:.0%}", ha="center", va="center", color="w" if share[i, j] > 0.5 else "k")
    axes.set_xticks(range(len(CLASSES)), CLASSES)
    axes.set_yticks(range(len(CLASSES)), CLASSES)
    axes.set(xlabel="predicted", ylabel="true")
    return _render(figure)


def classes_chart(scores: Mapping[str, float]) -> np.ndarray:
    """Draws bars by class: precision, recall and F1 of the pH states, IoU of the mask classes, if `scores` has them."""
    groups = {}
    if "accuracy" in scores:
        kinds = ("precision", "recall", "f1")
        groups["pH state"] = {kind: {name: scores[f"{name}_{kind}"] for name in CLASSES} for kind in kinds}
    if "mean_iou" in scores:
        present = [gas for gas in GASES if f"{gas}/mean_iou" in scores]
        groups["IoU"] = {gas.upper(): {name: scores[f"{gas}/iou_{name}"] for name in MASK_CLASSES} for gas in present}
    figure, all_axes = _figure(4.6 * len(groups), 3.4, columns=len(groups))
    for axes, (title, bars) in zip(all_axes, groups.items(), strict=True):
        for i, (label, values) in enumerate(bars.items()):
            places = np.arange(len(values)) + 0.8 * ((i + 0.5) / len(bars) - 0.5)
            axes.bar(places, np.nan_to_num(list(values.values())), 0.8 / len(bars), label=label)
        axes.set_xticks(range(len(values)), values)
        axes.set(ylim=(0, 1), title=title)
        axes.legend(fontsize="small")
    return _render(figure)


def reliability_chart(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Draws accuracy and share of the examples over confidence, from probabilities [N, 3] and labels int [N]."""
    examples, confidence, accuracy = reliability(probabilities, labels)
    figure, (axes,) = _figure(4.2, 3.8)
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    edges, share = np.arange(len(examples)) / len(examples), examples / max(examples.sum(), 1)
    axes.bar(edges, share, 1 / len(examples), align="edge", color="lightgrey", label="share of the examples")
    axes.plot(confidence, accuracy, marker="o", label="accuracy")
    axes.set(xlabel="confidence", xlim=(0, 1), ylim=(0, 1))
    axes.legend(fontsize="small")
    return _render(figure)


def coverage_chart(probabilities: np.ndarray, labels: np.ndarray, kept: float | None) -> np.ndarray:
    """Draws the errors among the surest examples over their share, from probabilities [N, 3] and labels int [N].

    A line marks the share `kept`, if any.
    """
    figure, (axes,) = _figure(4.2, 3.8)
    share, error = risk_coverage(probabilities, labels)
    axes.step(share, error, where="pre")
    if kept is not None:
        axes.axvline(kept, color="grey", linestyle="--", linewidth=1, label="kept")
        axes.legend(fontsize="small")
    axes.set(xlabel="share of the examples, the surest first", xlim=(0, 1), ylabel="error", ylim=(0, None))
    axes.grid(alpha=0.3)
    return _render(figure)


def training_chart(curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> np.ndarray:
    """Draws losses and headline metrics of a run over its steps, from (steps, values) by tag."""
    losses = [tag for tag in ("train/loss", "val/loss") if tag in curves]
    metrics = [f"val/{name}" for name in HEADLINES if f"val/{name}" in curves]
    figure, all_axes = _figure(10, 3.6, columns=2)
    for axes, tags in zip(all_axes, (losses, metrics), strict=True):
        for tag in tags:
            axes.plot(*curves[tag], label=tag, marker="." if tag.startswith("val/") else None)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if tags:
            axes.legend(fontsize="x-small", ncols=2)
    all_axes[1].set_ylim(0, 1)
    return _render(figure)


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
    figure, all_axes = _figure(10, 0.6 + 2.2 * rows, rows=rows)
    if probabilities is not None:
        _stack_probabilities(all_axes[0], edges, [_means(values, starts) for values in probabilities.T])
    if areas:
        _draw_areas(all_axes[-1], edges, areas, starts)
    for axes in all_axes:
        axes.grid(alpha=0.3)
    axes.set(xlim=(edges[0], edges[-1]), xlabel="time in s" if unit == "s" else unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=unit == "frame", min_n_ticks=1))
    return _render(figure)


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


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharex="col").ravel()


def _render(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
