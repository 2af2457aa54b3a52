"""Charts for people, drawn as RGB uint8 [H, W, 3]."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fume_jax.evaluation.overlays import CLASS_COLOURS, GAS_COLOURS
from fume_jax.learning.calibration import reliability
from fume_jax.learning.metrics import HEADLINES
from fume_jax.schema import CLASSES, GASES, MASK_CLASSES

# A timeline draws at most as many values side by side: about one a pixel.
COLUMNS = 1000
BESIDE = {"fontsize": "small", "loc": "upper left", "bbox_to_anchor": (1, 1), "frameon": False}


def confusion_chart(confusion: np.ndarray) -> np.ndarray:
    """The confusion matrix of the pH classes, int [3, 3], truth in rows."""
    figure, (axes,) = _figure(4.2, 3.8)
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), n in np.ndenumerate(confusion):
        axes.text(j, i, f"{n}\n{share[i, j]:.0%}", ha="center", va="center", color="w" if share[i, j] > 0.5 else "k")
    axes.set_xticks(range(len(CLASSES)), CLASSES)
    axes.set_yticks(range(len(CLASSES)), CLASSES)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return _drawn(figure)


def classes_chart(scores: Mapping[str, float]) -> np.ndarray:
    """Bars by class: precision, recall and F1 of the pH states, IoU of the mask classes, as far as there are any."""
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
        axes.set_ylim(0, 1)
        axes.set_title(title)
        axes.legend(fontsize="small")
    return _drawn(figure)


def reliability_chart(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Accuracy against confidence by bin, and how many examples a bin has, from float [N, 3] and int [N]."""
    examples, confidence, accuracy = reliability(probabilities, labels)
    figure, (axes,) = _figure(4.2, 3.8)
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    axes.bar(
        np.linspace(0, 1, len(examples) + 1)[:-1],
        examples / max(examples.sum(), 1),
        1 / len(examples),
        align="edge",
        color="lightgrey",
        label="share of the examples",
    )
    axes.plot(confidence, accuracy, marker="o", label="accuracy")
    axes.set_xlabel("confidence")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.legend(fontsize="small")
    return _drawn(figure)


def training_chart(curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> np.ndarray:
    """Losses and headline metrics of a run over its steps, from steps and values by tag."""
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
    return _drawn(figure)


def timeline_chart(
    times: np.ndarray, probabilities: np.ndarray | None, areas: Mapping[str, np.ndarray], *, unit: str
) -> np.ndarray:
    """What was predicted of the frames of a recording: probabilities of the classes, stacked, above the areas of gas.

    Of more frames than there is room for, each column of the chart shows those of a stretch of time: their means, and
    for areas the least and the most as well, so that a short puff does not vanish.

    Args:
      times: of the frames, float or int [N] with N >= 1, increasing.
      probabilities: float [N, 3], NaN where a frame has no class; None if the model does not classify.
      areas: by gas, share of the frame that is gas, float [N], NaN where the gas is absent; empty if the model does not
        segment.
      unit: of the times, `s` for seconds or `frame` for numbers of frames.

    Raises:
      ValueError: if there are neither probabilities nor areas.
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
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel("time in s" if unit == "s" else unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=unit == "frame", min_n_ticks=1))
    return _drawn(figure)


def _stack_probabilities(axes, edges, probabilities):
    below = 0
    for name, colour, values in zip(CLASSES, CLASS_COLOURS, probabilities, strict=True):
        axes.stairs(below + values, edges, baseline=below, fill=True, color=_rgb(colour), label=name)
        below = below + values
    axes.set_ylim(0, 1)
    axes.set_ylabel("probability")
    axes.legend(**BESIDE, reverse=True)


def _draw_areas(axes, edges, areas, starts):
    for gas, values in areas.items():
        colour, least, most = _rgb(GAS_COLOURS[gas]), np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)
        axes.stairs(most, edges, baseline=least, fill=True, color=colour, alpha=0.35)
        axes.stairs(
            _means(values, starts), edges, baseline=None, color=colour, linewidth=1.5, label=gas.upper(), zorder=3
        )
    axes.set_ylim(0, 1.1 * np.fmax.reduce([1e-3, *map(np.fmax.reduce, areas.values())]))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylabel("gas, share of the frame")
    axes.legend(**BESIDE)


def _edges(times):
    """Edges [N + 1] of what each frame stands for: halfway to its neighbours, and as far on the outer sides."""
    steps = np.diff(times) if len(times) > 1 else np.ones(1)
    return np.concatenate([[times[0] - steps[0] / 2], (times[1:] + times[:-1]) / 2, [times[-1] + steps[-1] / 2]])


def _means(values, starts):
    """Means of the values that are not NaN in the stretches that begin at `starts`; NaN where there is none."""
    known = ~np.isnan(values)
    count = np.add.reduceat(known, starts, dtype=int)
    sums = np.add.reduceat(np.where(known, values, 0), starts)
    return np.where(count > 0, sums / np.maximum(count, 1), np.nan)


def _rgb(colour):
    return tuple(level / 255 for level in colour)


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharex="col").ravel()


def _drawn(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
