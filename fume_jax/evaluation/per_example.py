"""Measures and tabulates the results of single examples, and reads such tables back."""

import csv
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from fume_jax.evaluation.evaluator import Results
from fume_jax.learning.losses import objective_by_example
from fume_jax.learning.metrics import segmentation_metrics
from fume_jax.learning.surface_distance import surface_distances
from fume_jax.runtime.files import readable, replacing
from fume_jax.schema import CLASSES, GAS, GASES, MASK_CLASSES


def measure_surface_distances(pool: Executor, results: Results) -> Results:
    """Replaces the masks in results of `eval_step` by the surface distances between predicted and annotated plumes.

    The threads of `pool` share the examples. The distances are `{gas}_hd95` and `{gas}_asd` (ASSD), float [B] in
    pixels, and `{gas}_missed`, 1.0 or 0.0 [B]; see `learning.surface_distance`. If a gas is absent, its distances are
    NaN and it is not missed.
    """
    results = dict(results)
    for i, gas in enumerate(GASES):
        predictions = results.pop(f"{gas}_prediction", None)
        if predictions is not None:
            masks, present = results.pop(f"{gas}_mask"), results["valid"] & (results["modality_mask"][:, i] > 0)
            measured = np.tile([np.nan, np.nan, 0.0], (len(masks), 1))
            pairs = zip(masks[present], predictions[present], strict=True)
            distances = list(pool.map(lambda pair: surface_distances(*pair, GAS), pairs))
            measured[present] = np.reshape(distances, (-1, 3))
            results |= {f"{gas}_{name}": measured[:, j] for j, name in enumerate(("hd95", "asd", "missed"))}
    return results


def columns(results: Results, *, cls_weight: float, seg_weight: float) -> dict[str, np.ndarray]:
    """Returns the columns of the table of examples, arrays [N] by name, from the results of `collect_results`.

    The columns are indices, true and predicted class, probabilities, scores of each gas, loss, and the pixels of each
    true and predicted class, such as `co2_gas_as_tube`, as far as the model has them. A value that an example lacks is
    NaN.
    """
    table = {name: results[name] for name in ("example_index", "recording_index")}
    table["label"] = np.array(CLASSES)[results["labels"]]
    if "cls_confusion" in results:
        table["prediction"] = np.array(CLASSES)[results["cls_confusion"].sum(1).argmax(-1)]
    if "probabilities" in results:
        table |= {name: results["probabilities"][:, i] for i, name in enumerate(CLASSES)}
    for gas in GASES:
        if f"{gas}_confusion" in results:
            scores = [segmentation_metrics(confusion) for confusion in results[f"{gas}_confusion"]]
            table |= {f"{gas}_{name}": np.array([s[name] for s in scores]) for name in ("iou_gas", "mean_iou")}
            table |= {f"{gas}_{name}": results[f"{gas}_{name}"] for name in ("hd95", "asd")}
    losses = {name: values for name, values in results.items() if name.endswith("_loss")}
    if losses:
        options = {"cls_weight": cls_weight, "seg_weight": seg_weight}
        table["loss"] = objective_by_example(losses, results["modality_mask"], **options)
    for gas in GASES:
        if f"{gas}_confusion" in results:
            table |= dict(zip(_pixel_columns(gas), results[f"{gas}_confusion"].reshape(-1, 9).T, strict=True))
    return table


def write_table(path: Path, table: dict[str, np.ndarray]) -> None:
    """Writes columns as CSV; NaN becomes an empty cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*(map(_cell, values) for values in table.values()), strict=True))


def read_results(path: Path) -> Results:
    """Reads a table of examples back as the results that metrics are computed from.

    Returns `example_index`, `recording_index` and `labels`, int [N], and as far as the model has them `probabilities`,
    float [N, 3], `cls_confusion` and `{gas}_confusion`, int [N, 3, 3], and `{gas}_hd95` and `{gas}_asd`, float [N], NaN
    where there is no distance. Raises UserError if the table is damaged or one of an earlier version, and OSError if
    there is none.
    """
    with readable(path, "a table of examples of this version; fume evaluate writes it again"):
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        table = dict(zip(header, zip(*rows, strict=True), strict=True))
        results = {name: np.array(table[name], int) for name in ("example_index", "recording_index")}
        labels = results["labels"] = np.array([CLASSES.index(name) for name in table["label"]])
        if "prediction" in table:
            predictions = np.array([CLASSES.index(name) for name in table["prediction"]])
            results["probabilities"] = np.stack([np.array(table[name], float) for name in CLASSES], -1)
            results["cls_confusion"] = np.zeros((len(rows), len(CLASSES), len(CLASSES)), int)
            results["cls_confusion"][np.arange(len(rows)), labels, predictions] = 1
        for gas in GASES:
            if f"{gas}_iou_gas" in table:
                pixels = [np.array(table[name], int) for name in _pixel_columns(gas)]
                results[f"{gas}_confusion"] = np.stack(pixels, -1).reshape(-1, len(MASK_CLASSES), len(MASK_CLASSES))
                distances = (f"{gas}_hd95", f"{gas}_asd")
                results |= {name: np.array([cell or "nan" for cell in table[name]], float) for name in distances}
    return results


def _pixel_columns(gas):
    """Returns the names of the counts of pixels of a gas: of each true class those of each predicted one."""
    return [f"{gas}_{truth}_as_{predicted}" for truth in MASK_CLASSES for predicted in MASK_CLASSES]


def _cell(value):
    if not isinstance(value, float | np.floating):
        return value
    return "" if np.isnan(value) else f"{value:.6g}"
