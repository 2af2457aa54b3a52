"""What an evaluation says of single examples."""

import csv
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from fume_jax.evaluation.evaluator import Results
from fume_jax.learning.losses import objective_by_example
from fume_jax.learning.metrics import segmentation_metrics
from fume_jax.learning.surface_distance import boundary_distances
from fume_jax.schema import CLASSES, GAS, GASES


def measure_boundaries(pool: Executor, results: Results) -> Results:
    """Replaces the masks of a batch by how far the edges of their plumes are from the annotated ones.

    Args:
      pool: of threads, which share the examples.
      results: of `train_step.eval_step` with masks.

    Returns:
      The results without masks, with `{gas}_hd95` and `{gas}_asd`, float [B] in pixels, and `{gas}_missed`, bool [B];
      see `boundary_distances`. NaN, and not missed, where the gas is absent.
    """
    results = dict(results)
    for i, gas in enumerate(GASES):
        predictions = results.pop(f"{gas}_prediction", None)
        if predictions is not None:
            masks, present = results.pop(f"{gas}_mask"), results["valid"] & (results["modality_mask"][:, i] > 0)
            measured = np.tile([np.nan, np.nan, 0.0], (len(masks), 1))
            pairs = zip(masks[present], predictions[present], strict=True)
            found = list(pool.map(lambda pair: boundary_distances(*pair, GAS), pairs))
            measured[present] = np.reshape(found, (-1, 3))
            results |= {f"{gas}_{name}": measured[:, j] for j, name in enumerate(("hd95", "asd", "missed"))}
    return results


def columns(results: Results, *, cls_weight: float, seg_weight: float) -> dict[str, np.ndarray]:
    """The columns of the table of examples, by name; NaN where an example has no such thing.

    Args:
      results: of `evaluation.collect`, arrays [N, ...].
      cls_weight, seg_weight: of the two tasks in the loss.

    Returns:
      Arrays [N]: which example it is, the loss, and what the model says and how well, as far as it does.
    """
    table = {name: results[name] for name in ("example_index", "recording_index")}
    table["label"] = np.array(CLASSES)[results["labels"]]
    if "probabilities" in results:
        table["prediction"] = np.array(CLASSES)[results["probabilities"].argmax(-1)]
        table |= {name: results["probabilities"][:, i] for i, name in enumerate(CLASSES)}
    for gas in GASES:
        if f"{gas}_confusion" in results:
            scores = [segmentation_metrics(confusion) for confusion in results[f"{gas}_confusion"]]
            table |= {f"{gas}_{name}": np.array([s[name] for s in scores]) for name in ("iou_gas", "mean_iou")}
            table |= {f"{gas}_{name}": results[f"{gas}_{name}"] for name in ("hd95", "asd")}
    losses = {name: values for name, values in results.items() if name.endswith("_loss")}
    weights = {"cls_weight": cls_weight, "seg_weight": seg_weight}
    return table | {"loss": objective_by_example(losses, results["modality_mask"], **weights)}


def write_table(path: Path, table: dict[str, np.ndarray]) -> None:
    """Writes columns as CSV; NaN is an empty cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*(map(_cell, values) for values in table.values()), strict=True))


def _cell(value):
    if not isinstance(value, float | np.floating):
        return value
    return "" if np.isnan(value) else f"{value:.6g}"
