"""Segmentation and classification metrics from confusion counts.

Batches are counted on the device; metrics are computed from the sums once at the end, on the host. A confusion matrix
has the truth in rows and the prediction in columns.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from fume_jax.schema import BACKGROUND, CLASSES, GAS, GASES, IGNORE, MASK_CLASSES, NOT_GAS

# Metrics that tables show and checkpoints may be chosen by (larger is better), with the tasks that each needs.
HEADLINES = {
    **dict.fromkeys(("iou_gas", "mean_iou", "mean_dice", "pixel_accuracy"), frozenset({"segmentation"})),
    **dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1"), frozenset({"classification"})),
    "joint_score": frozenset({"segmentation", "classification"}),
}

# Metrics of the classification of whole recordings, named `recording/{name}`.
RECORDING_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "Transitional_f1")
# Metrics of `kept_metrics`.
KEPT_METRICS = ("kept/share", "kept/accuracy", "kept/balanced_accuracy")


def confusion_matrix(labels: jax.Array, predictions: jax.Array, counted: jax.Array, classes: int) -> jax.Array:
    """Counts int32 [classes, classes] over three arrays of one shape: ints, ints and bool."""
    cell = jnp.where(counted, labels * classes + predictions, -1).reshape(-1)
    # Comparing with every cell is one fused pass; scattering into nine cells is serial on an accelerator.
    return (cell[None, :] == jnp.arange(classes**2)[:, None]).sum(1, dtype=jnp.int32).reshape(classes, classes)


def decide(outputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns the most probable class by head, `cls` int [B] and `{gas}_seg` int [B, H, W], from the logits of each."""
    return {name.removesuffix("_logits"): logits.argmax(-1) for name, logits in outputs.items()}


def example_confusions(decisions: dict[str, jax.Array], batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Counts the confusions of every example of a batch; those of padding and of absent gases are 0.

    Pixels that are `IGNORE` are not counted. Those that are `NOT_GAS` count as background, and so does tube that is
    predicted there, since it may be right.

    Returns `cls_confusion` and `{gas}_confusion` of what `decide` returns, or any program has predicted, int32
    [B, 3, 3], to be summed in 64 bits.
    """
    counts = {}
    confusions = jax.vmap(confusion_matrix, in_axes=(0, 0, 0, None))
    if "cls" in decisions:
        counts["cls_confusion"] = confusions(batch["labels"], decisions["cls"], batch["valid"], len(CLASSES))
    for i, gas in enumerate(GASES):
        if f"{gas}_seg" in decisions:
            predictions = decisions[f"{gas}_seg"]
            present = batch["valid"] & (batch["modality_mask"][:, i] > 0)
            masks = batch[f"{gas}_mask"]
            counted, not_gas = present[:, None, None] & (masks != IGNORE), masks == NOT_GAS
            predictions = jnp.where(not_gas & (predictions != GAS), BACKGROUND, predictions)
            masks = jnp.where(not_gas, BACKGROUND, masks)
            counts[f"{gas}_confusion"] = confusions(masks, predictions, counted, len(MASK_CLASSES))
    return counts


def compute_metrics(counts: dict[str, np.ndarray]) -> dict[str, float]:
    """Computes all metrics from summed counts: any of `cls_confusion`, `co2_confusion`, `ch4_confusion`, int [3, 3].

    Returns classification metrics by name; segmentation metrics by name, pooled over gases, and by `{gas}/{name}`; with
    both tasks `joint_score`, half mean IoU and half balanced accuracy.
    """
    metrics = {}
    if "cls_confusion" in counts:
        metrics |= classification_metrics(np.asarray(counts["cls_confusion"]))
    by_gas = {gas: np.asarray(counts[f"{gas}_confusion"]) for gas in GASES if f"{gas}_confusion" in counts}
    if by_gas:
        metrics |= segmentation_metrics(sum(by_gas.values()))
    for gas, confusion in by_gas.items():
        metrics |= {f"{gas}/{name}": value for name, value in segmentation_metrics(confusion).items()}
    if {"mean_iou", "balanced_accuracy"} <= metrics.keys():
        metrics["joint_score"] = 0.5 * metrics["mean_iou"] + 0.5 * metrics["balanced_accuracy"]
    return metrics


def segmentation_metrics(confusion: np.ndarray) -> dict[str, float]:
    """Computes IoU and Dice per class, their means and pixel accuracy from counts of pixels, int [3, 3].

    A class absent from both truth and prediction is NaN and left out of the means. If gas is, the means are NaN too:
    those of background alone would be 1.
    """
    tp, truth, predicted = _counts(confusion)
    iou = _divide(tp, truth + predicted - tp)
    dice = _divide(2 * tp, truth + predicted)
    accuracy = float(_divide(tp.sum(), confusion.sum()))
    has_gas = truth[GAS] + predicted[GAS] > 0
    means = {"mean_iou": iou, "mean_dice": dice}
    metrics = {name: _nanmean(values) if has_gas else math.nan for name, values in means.items()}
    metrics["pixel_accuracy"] = accuracy
    for i, name in enumerate(MASK_CLASSES):
        metrics |= {f"iou_{name}": float(iou[i]), f"dice_{name}": float(dice[i])}
    return metrics


def classification_metrics(confusion: np.ndarray) -> dict[str, float]:
    """Computes accuracy, balanced accuracy, Cohen's kappa, and precision, recall and F1 (macro, weighted, per class).

    `confusion` counts examples, int [3, 3]. Definitions are scikit-learn's with `zero_division=0`: precision of a class
    that is never predicted is 0, and so is recall of one that is predicted without being there. A class absent from
    truth and prediction is NaN and left out of the macro means. Balanced accuracy is the mean recall of the classes
    that are there: unlike `macro_recall` it leaves out one that is only predicted. `weighted_recall` is the accuracy.

    Unlike scikit-learn's, balanced accuracy and macro means are NaN if the truth has a single class, of which whoever
    predicts nothing else would have 1.
    """
    tp, truth, predicted = _counts(confusion)
    total, several = confusion.sum(), (truth > 0).sum() > 1
    f1 = _divide(2 * tp, truth + predicted)
    # Where a denominator is 0 there is no hit either: 0 / 1.
    hits = np.where(np.isnan(f1), np.nan, tp)
    precision, recall = hits / np.maximum(predicted, 1), hits / np.maximum(truth, 1)
    accuracy = _divide(tp.sum(), total)
    chance = _divide((truth * predicted).sum(), total**2)
    metrics = {
        "accuracy": float(accuracy),
        "balanced_accuracy": _nanmean(recall[truth > 0]) if several else math.nan,
        "cohens_kappa": float(_divide(accuracy - chance, 1 - chance)),
    }
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        metrics[f"macro_{name}"] = _nanmean(values) if several else math.nan
        metrics[f"weighted_{name}"] = float(_divide(np.nansum(values * truth), total))
    for i, name in enumerate(CLASSES):
        metrics |= {f"{name}_precision": float(precision[i]), f"{name}_recall": float(recall[i])}
        metrics |= {f"{name}_f1": float(f1[i]), f"{name}_support": int(truth[i])}
    return metrics


def false_alarms(results: dict[str, np.ndarray]) -> dict[str, float]:
    """Computes `false_gas`, the share of frames without gas in which any is found, and `frames_without_gas`.

    `results` have `{gas}_confusion` of every example, int [N, 3, 3], of which those of frames that are not there are 0.
    Returns nothing if all frames have gas.
    """
    confusions = [results[f"{gas}_confusion"] for gas in GASES if f"{gas}_confusion" in results]
    if not confusions:
        return {}
    frames = np.concatenate(confusions)
    without = frames[(frames.sum((1, 2)) > 0) & (frames[:, GAS].sum(1) == 0)]
    if not len(without):
        return {}
    return {"false_gas": float((without[:, :, GAS].sum(1) > 0).mean()), "frames_without_gas": len(without)}


def recording_metrics(counts: dict[str, np.ndarray]) -> dict[str, float]:
    """Computes `recording/{name}` of `RECORDING_METRICS` from `cls_confusion`, which counts recordings, int [3, 3]."""
    metrics = classification_metrics(np.asarray(counts["cls_confusion"]))
    return {f"recording/{name}": metrics[name] for name in RECORDING_METRICS}


def kept_metrics(probabilities: np.ndarray, labels: np.ndarray, limit: float) -> dict[str, float]:
    """Computes what is left if examples of a lower confidence than a limit, the largest probability, abstain.

    `probabilities` are float [N, C] with N >= 1, and `labels` int [N]. Returns `kept/share`, and of what is kept
    `kept/accuracy` and `kept/balanced_accuracy`, NaN as in `classification_metrics`.
    """
    kept = probabilities.max(-1) >= limit
    confusion = np.zeros(2 * probabilities.shape[1:], np.int64)
    np.add.at(confusion, (labels[kept], probabilities[kept].argmax(-1)), 1)
    metrics = classification_metrics(confusion) | {"share": float(kept.mean())}
    return {name: metrics[name.removeprefix("kept/")] for name in KEPT_METRICS}


def absent_classes(metrics: dict[str, float]) -> list[str]:
    """Lists classes that are in neither truth nor prediction, so that their metrics are NaN: "Acidotic", "ch4 tube".

    `metrics` are those of `compute_metrics`; a class that was not scored is not listed.
    """
    keys = {name: f"{name}_f1" for name in CLASSES}
    keys |= {f"{gas} {name}": f"{gas}/iou_{name}" for gas in GASES for name in MASK_CLASSES}
    return [name for name, key in keys.items() if np.isnan(metrics.get(key, 0.0))]


def _counts(confusion):
    confusion = confusion.astype(np.float64)
    return np.diag(confusion), confusion.sum(1), confusion.sum(0)


def _divide(a, b):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(b) != 0, np.divide(a, b), np.nan)


def _nanmean(values):
    return float(np.mean(values[~np.isnan(values)])) if (~np.isnan(values)).any() else float("nan")
