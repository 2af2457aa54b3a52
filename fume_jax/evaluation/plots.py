"""Draws charts as RGB uint8 [H, W, 3]."""

from collections.abc import Mapping, Sequence

import numpy as np

from fume_jax.evaluation.timeline import create_figure, render
from fume_jax.learning.calibration import reliability, risk_coverage
from fume_jax.learning.metrics import HEADLINES
from fume_jax.schema import CLASSES, GASES, MASK_CLASSES


def confusion_chart(confusion: np.ndarray) -> np.ndarray:
    """Draws the confusion matrix of the pH classes, int [3, 3], truth in rows."""
    figure, (axes,) = create_figure(4.2, 3.8)
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), n in np.ndenumerate(confusion):
        axes.text(j, i, f"{n}\n{share[i, j]:.0%}", ha="center", va="center", color="w" if share[i, j] > 0.5 else "k")
    axes.set_xticks(range(len(CLASSES)), CLASSES)
    axes.set_yticks(range(len(CLASSES)), CLASSES)
    axes.set(xlabel="predicted", ylabel="true")
    return render(figure)


def classes_chart(scores: Mapping[str, float]) -> np.ndarray:
    """Draws bars by class: precision, recall and F1 of the pH states, IoU of the mask classes, if `scores` has them."""
    groups = {}
    if "accuracy" in scores:
        kinds = ("precision", "recall", "f1")
        groups["pH state"] = {kind: {name: scores[f"{name}_{kind}"] for name in CLASSES} for kind in kinds}
    if "mean_iou" in scores:
        present = [gas for gas in GASES if f"{gas}/mean_iou" in scores]
        groups["IoU"] = {gas.upper(): {name: scores[f"{gas}/iou_{name}"] for name in MASK_CLASSES} for gas in present}
    figure, all_axes = create_figure(4.6 * len(groups), 3.4, columns=len(groups))
    for axes, (title, bars) in zip(all_axes, groups.items(), strict=True):
        for i, (label, values) in enumerate(bars.items()):
            places = np.arange(len(values)) + 0.8 * ((i + 0.5) / len(bars) - 0.5)
            axes.bar(places, np.nan_to_num(list(values.values())), 0.8 / len(bars), label=label)
        axes.set_xticks(range(len(values)), values)
        axes.set(ylim=(0, 1), title=title)
        axes.legend(fontsize="small")
    return render(figure)


def reliability_chart(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Draws accuracy and share of the examples over confidence, from probabilities [N, 3] and labels int [N]."""
    examples, confidence, accuracy = reliability(probabilities, labels)
    figure, (axes,) = create_figure(4.2, 3.8)
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    edges, share = np.arange(len(examples)) / len(examples), examples / max(examples.sum(), 1)
    axes.bar(edges, share, 1 / len(examples), align="edge", color="lightgrey", label="share of the examples")
    axes.plot(confidence, accuracy, marker="o", label="accuracy")
    axes.set(xlabel="confidence", xlim=(0, 1), ylim=(0, 1))
    axes.legend(fontsize="small")
    return render(figure)


def coverage_chart(probabilities: np.ndarray, labels: np.ndarray, kept: float | None) -> np.ndarray:
    """Draws the errors among the surest examples over their share, from probabilities [N, 3] and labels int [N].

    A line marks the share `kept`, if any.
    """
    figure, (axes,) = create_figure(4.2, 3.8)
    share, error = risk_coverage(probabilities, labels)
    axes.step(share, error, where="pre")
    if kept is not None:
        axes.axvline(kept, color="grey", linestyle="--", linewidth=1, label="kept")
        axes.legend(fontsize="small")
    axes.set(xlabel="share of the examples, the surest first", xlim=(0, 1), ylabel="error", ylim=(0, None))
    axes.grid(alpha=0.3)
    return render(figure)


def training_chart(curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> np.ndarray:
    """Draws losses and headline metrics of a run over its steps, from (steps, values) by tag."""
    losses = [tag for tag in ("train/loss", "val/loss") if tag in curves]
    metrics = [f"val/{name}" for name in HEADLINES if f"val/{name}" in curves]
    figure, all_axes = create_figure(10, 3.6, columns=2)
    for axes, tags in zip(all_axes, (losses, metrics), strict=True):
        for tag in tags:
            axes.plot(*curves[tag], label=tag, marker="." if tag.startswith("val/") else None)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if tags:
            axes.legend(fontsize="x-small", ncols=2)
    all_axes[1].set_ylim(0, 1)
    return render(figure)
