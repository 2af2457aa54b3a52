"""Scores what any program predicted as `report` scores a model: `metrics.json`, tables of examples, and pictures."""

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from fume_jax.data.cases import Case
from fume_jax.data.dataset import Dataset
from fume_jax.data.loader import Loader
from fume_jax.data.pipeline import DataOptions, ReadOptions
from fume_jax.evaluation import overlays, per_example
from fume_jax.evaluation.evaluator import collect_results
from fume_jax.evaluation.predictions import Predictions, read_predictions
from fume_jax.evaluation.report import (
    choose_examples,
    identity,
    print_written,
    save_picture,
    score_splits,
    write_examples,
    write_scores,
)
from fume_jax.learning.step import decision_results
from fume_jax.runtime.byproducts import ByProducts
from fume_jax.runtime.console import Console
from fume_jax.runtime.mesh import batch_sharding, create_mesh, replicate_to_hosts
from fume_jax.schema import CLASSES, GASES, MASK_CLASSES

BATCH_SIZE = 16
READ = ReadOptions(num_threads=os.cpu_count() or 1, num_workers=0, prefetch=2, timeout_seconds=600.0)
# Predictions have no loss that tasks could share.
NO_WEIGHTS = {"cls_weight": 0.0, "seg_weight": 0.0}
# What a batch has of a prediction besides the masks.
CLASS_KEYS = ("class", "probabilities")


def score_predictions(
    folder: str,
    data: str,
    splits: Sequence[str],
    *,
    output: str | None = None,
    height: int | None = None,
    width: int | None = None,
    allow_missing: bool = False,
    by_products: ByProducts | None = None,
) -> dict[str, dict[str, float]]:
    """Scores predictions, prints a table, and writes `metrics.json`, `examples/SPLIT.csv` and `pictures/`.

    Args:
      folder: what `predictions` reads.
      data, splits: folder of the prepared dataset, and the splits to score.
      output: folder to write to, that of the predictions if None.
      height, width: size to score masks at, that of the stored frames if None. Masks of another size, predicted or
        annotated, are resized by vote, as they are for a model that works at that size.
      allow_missing: see `read_predictions`.
      by_products: counts the files besides `metrics.json` that could not be made, which is told.

    Returns:
      Metrics by split.

    Raises:
      UserError: if the dataset lacks a split, or as `read_predictions` does.
    """
    dataset, console, mesh = Dataset(data), Console(), create_mesh()
    by_products = ByProducts(console.print) if by_products is None else by_products
    size = height or dataset.size[0], width or dataset.size[1]
    predictions = read_predictions(Path(folder), dataset, splits, size, allow_missing=allow_missing)
    _print_notes(predictions, size, dataset, console)
    loader = Loader(dataset, _data_options(*size), mesh, console)
    results = {split: _collect(predictions, split, loader, console) for split in splits}
    scores = score_splits(results, fitted_on="val", **NO_WEIGHTS)
    first, folder, output = jax.process_index() == 0, Path(folder), Path(output or folder)
    if first:
        content = {"predictions": str(folder), "size": _words(size)} | identity(dataset)
        content |= {f"missing_{kind}": count for kind, count in predictions.missing.items()}
        write_scores(output, f"Predictions in {folder}", content, results, scores, dataset)
    for split, found in results.items():
        table = per_example.columns(found, **NO_WEIGHTS)
        if first:
            write_examples(output, split, table, scores[split], found, by_products)
        for kind, indices in choose_examples(table).items():
            batch = replicate_to_hosts(loader.examples(split, indices))
            if first:
                shown = batch, _outputs(_extend(batch, predictions=predictions, split=split)), len(indices)
                save_picture(output, f"{split}_{kind}", by_products, overlays.pair_panel, *shown)
    if first:
        print_written(output, by_products)
    return scores


def _print_notes(predictions, size, dataset, console):
    if predictions.gases:
        gases = " and ".join(gas.upper() for gas in predictions.gases)
        stored = "that of the stored frames"
        if size != dataset.size:
            stored = f"to which annotated masks, of {_words(dataset.size)}, are resized by majority vote"
        console.print(f"Masks of {gases} are scored at {_words(size)}, {stored}.")
    for note in predictions.notes:
        console.print(f"note: {note}")


def _words(size):
    return f"{size[1]}x{size[0]}"


def _data_options(height, width):
    """Returns the options by which batches of an evaluation are read; those of training have no effect."""
    training = {"train_batch_size": BATCH_SIZE, "sampling": "uniform", "augmentation": (), "seed": 0}
    return DataOptions(height=height, width=width, eval_batch_size=BATCH_SIZE, cache="none", read=READ, **training)


def _collect(predictions, split, loader, console):
    """Returns the results of a split, as those of a model but for losses."""
    with ThreadPoolExecutor() as pool:
        batches = loader.split(split, functools.partial(_extend, predictions=predictions, split=split))
        batches = console.over(batches, total=loader.num_batches(split), unit="batch", desc=split)
        measure = functools.partial(per_example.measure_surface_distances, pool)
        compare = jax.jit(_compare, out_shardings=batch_sharding(loader.mesh))
        return collect_results(compare, {"params": None, "batch_stats": None}, batches, measure)


def _extend(batch, *, predictions: Predictions, split):
    """Returns a batch on the host with the predictions of its examples; those of padding are zeros."""
    indices, extended = batch["example_index"], dict(batch)
    for key, values in zip(CLASS_KEYS, (predictions.classes, predictions.probabilities), strict=True):
        if values:
            extended[key] = np.where(_like(batch["valid"], values[split]), values[split][indices], 0)
    for gas in predictions.gases:
        size = batch[f"{gas}_mask"].shape[1:]
        masks = [predictions.mask(Case(split, int(index), gas), *size) for index in indices]
        extended[f"{gas}_prediction"] = np.stack(masks)
    return extended


def _like(valid, values):
    return valid.reshape(-1, *[1] * (values.ndim - 1))


def _compare(params, batch_stats, batch):
    """Counts what was predicted of a batch, in place of `eval_step`."""
    decisions = {f"{gas}_seg": batch[f"{gas}_prediction"] for gas in GASES if f"{gas}_prediction" in batch}
    decisions |= {"cls": batch["class"]} if "class" in batch else {}
    decisions = {name: values.astype(jnp.int32) for name, values in decisions.items()}
    kept = {name: batch[name] for name in ("probabilities",) if name in batch}
    return decision_results(decisions, batch, masks=True) | kept


def _outputs(batch):
    """Returns the predictions of a batch in place of a model's logits."""
    outputs = {}
    if "class" in batch:
        outputs["cls_logits"] = np.eye(len(CLASSES))[batch["class"]]
    for gas in GASES:
        if f"{gas}_prediction" in batch:
            outputs[f"{gas}_seg_logits"] = np.eye(len(MASK_CLASSES))[batch[f"{gas}_prediction"]]
    return outputs
