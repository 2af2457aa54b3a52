"""Writes the report on a run's best checkpoint: `metrics.json`, a table of examples, and pictures.

`prediction_report` shares the functions without a model.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from fume_jax.config import eval_batch_shape, get_architecture, task_weights
from fume_jax.data.dataset import Dataset
from fume_jax.data.loader import Loader
from fume_jax.evaluation import overlays, per_example, plots
from fume_jax.evaluation.certainty import calibrate, measure_training_frames
from fume_jax.evaluation.evaluator import (
    Results,
    collect_results,
    create_attention_fn,
    create_eval_fns,
    recording_counts,
    score_results,
)
from fume_jax.evaluation.tables import metrics_table
from fume_jax.learning.bootstrap import bootstrap_intervals
from fume_jax.learning.calibration import expected_calibration_error
from fume_jax.learning.metrics import HEADLINES, absent_classes, compute_metrics, recording_metrics
from fume_jax.learning.statistics import FEW_GROUPS
from fume_jax.learning.surface_distance import surface_metrics
from fume_jax.runtime import preflight
from fume_jax.runtime.byproducts import ByProducts
from fume_jax.runtime.console import Console
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import full_disk, read_json, replace_text
from fume_jax.runtime.mesh import create_mesh, replicate_to_hosts
from fume_jax.runtime.preemption import StopRequest
from fume_jax.schema import GASES

Curve = tuple[list[int], list[float]]  # steps and values

# Pairs per picture of examples.
SHOWN = 6


def write_report(
    config: ml_collections.ConfigDict,
    workdir: str,
    model: dict,
    step: int,
    loader: Loader,
    splits: Sequence[str],
    *,
    curves: Mapping[str, Curve],
    output: str | None = None,
    tta: bool = False,
    protocol: str = "present",
    training_data: bool = False,
    stop: StopRequest | None = None,
    by_products: ByProducts | None = None,
) -> dict[str, dict[str, float]]:
    """Scores a model, prints a table, and writes `metrics.json`, `examples/SPLIT.csv` and `pictures/` to a folder.

    All processes share the work; the first one prints and writes, the table before any file.

    Args:
      config, workdir: config and folder of the run.
      model, step: `params` and `batch_stats`, and the step that they were trained to.
      loader, splits: loader of the dataset, and the splits to score.
      curves: scalars logged in training, by tag, to draw.
      output: folder to write to, that of the run if None.
      tta: average predictions over each frame and its mirror image.
      protocol: `present` scores the recorded gases. `reference` scores as the PyTorch original did, to compare with its
        published figures: CO2 masks alone, and every pair as if it had both gases, an absent one being a frame of zeros
        without a plume.
      training_data: the model was trained on this dataset, so that its training frames are measured, for predictions
        to tell frames that are unlike them.
      stop: a request ends the evaluation before anything is written.
      by_products: counts the files besides `metrics.json` that could not be made, which is told.

    Returns:
      Metrics by split. A split's name, here and in the files, ends in `_tta` or `_reference` where these apply.

    Raises:
      UserError: if the dataset lacks a split, or the model predicts no CO2 masks for the reference protocol.
      Stopped: if `stop` is requested.
    """
    if protocol == "reference" and "co2" not in get_architecture(config).segmented:
        raise UserError("--protocol=reference scores masks of CO2, which this model does not predict.")
    console, mesh, dataset = Console(quiet=config.log.quiet), create_mesh(), loader.dataset
    for split in splits:
        dataset.split(split)  # reports a misspelt one before anything is written
    by_products = ByProducts(console.print) if by_products is None else by_products
    eval_fn, predict_fn = create_eval_fns(config, mesh, flips=tta, masks=True)
    reference = protocol == "reference"
    suffix = ("_tta" if tta else "") + ("_reference" if reference else "")
    results = {}
    for split in splits:
        options = {"name": split + suffix, "console": console, "stop": stop, "reference": reference}
        batches = loader.split(split), loader.num_batches(split)
        results[split + suffix] = _collect(config, model, eval_fn, *batches, **options)
    weights = task_weights(config)
    scores = score_splits(results, fitted_on=f"val{suffix}", **weights)
    first, folder = jax.process_index() == 0, Path(output or workdir)
    if first:
        source = {"step": step} | identity(dataset)
        earlier = _earlier_scores(folder / "metrics.json", source, console)
        further = _measure_training_frames(loader, by_products) if training_data else {}
        content = earlier | source | further
        unchanged = step == 0 and config.init_from is not None
        start = f", what it started from: no step did better in {config.checkpoint.best_metric}" * unchanged
        write_scores(folder, f"Best checkpoint: step {step} of {workdir}{start}", content, results, scores, dataset)
    # What follows may fail without harm to the scores.
    attention_fn = create_attention_fn(config, mesh)
    for split, (name, found) in zip(splits, results.items(), strict=True):
        table = per_example.columns(found, **weights)
        if first:
            write_examples(folder, name, table, scores[name], found, by_products)
        for kind, indices in choose_examples(table).items():
            batch = loader.examples(split, indices)
            batch = _with_both_gases(batch) if reference else batch
            outputs, attention = predict_fn(**model, batch=batch), attention_fn(**model, batch=batch)
            shown = replicate_to_hosts((batch, outputs, attention))
            if first:
                _save_panels(folder, f"{name}_{kind}", by_products, *shown, len(indices))
    if first:
        save_picture(folder, "training", by_products, plots.training_chart, curves)
        print_written(folder, by_products)
    return scores


def score_splits(
    results: Mapping[str, Results], *, fitted_on: str, cls_weight: float, seg_weight: float
) -> dict[str, dict[str, float]]:
    """Computes all metrics of some splits from the results of `collect_results`, both by the name of the split.

    The weights are those of the tasks in the loss, for results that have losses. The temperature and the limits of
    `certainty.calibrate` are fitted on the split `fitted_on`, if it is there.
    """
    weights = {"cls_weight": cls_weight, "seg_weight": seg_weight}
    scores = {name: score_results(found, **weights) | _further_scores(found) for name, found in results.items()}
    calibrate(results, scores, fitted_on)
    return scores


def write_scores(
    folder: Path,
    title: str,
    content: Mapping[str, object],
    results: Mapping[str, Results],
    scores: Mapping[str, Mapping[str, float]],
    dataset: Dataset,
) -> None:
    """Prints the scores under a title, and writes them with their intervals and what else `metrics.json` shall hold."""
    found = {name: intervals(own) for name, own in results.items()}
    _print_summary(title, scores, found, dataset)
    with full_disk(folder, "the scores printed above"):
        folder.mkdir(parents=True, exist_ok=True)
        _write_metrics(folder / "metrics.json", content, scores, found, dataset)


def write_examples(
    folder: Path,
    name: str,
    table: dict[str, np.ndarray],
    scores: Mapping[str, float],
    results: Results,
    by_products: ByProducts,
) -> None:
    """Writes the table of the examples of a split and draws its charts."""
    path = folder / "examples" / f"{name}.csv"
    with by_products.attempt("examples", str(path)):
        per_example.write_table(path, table)
    save_picture(folder, f"{name}_classes", by_products, plots.classes_chart, scores)
    if "cls_confusion" in results:
        save_picture(folder, f"{name}_confusion", by_products, plots.confusion_chart, results["cls_confusion"].sum(0))
    if "probabilities" in results:
        drawn = results["probabilities"], results["labels"]
        save_picture(folder, f"{name}_reliability", by_products, plots.reliability_chart, *drawn)
        kept = scores.get("kept/share")
        save_picture(folder, f"{name}_coverage", by_products, plots.coverage_chart, *drawn, kept)


def print_written(folder: Path, by_products: ByProducts) -> None:
    """Tells at the end of a report where it is and what of it failed."""
    by_products.summarize()
    print(f"Wrote {folder}/metrics.json, {folder}/examples and {folder}/pictures.")


def _measure_training_frames(loader, by_products):
    """Returns what `metrics.json` has of the training frames: nothing, which is told, if they cannot be read."""
    with by_products.attempt("training_frames", "a summary of the training frames"):
        size = loader.options.height, loader.options.width
        return {"training_frames": measure_training_frames(loader.dataset, *size)}
    return {}


def _save_panels(folder, name, by_products, batch, outputs, attention, count):
    """Saves the overlays of the first `count` pairs of a batch, and where their attention looks, if it has any."""
    save_picture(folder, name, by_products, overlays.pair_panel, batch, outputs, count)
    if attention:
        save_picture(folder, f"{name}_attention", by_products, overlays.attention_panel, batch, attention, count)


def _collect(config, model, eval_fn, batches, num_batches, *, name, console, stop, reference):
    """Returns the results of a split; Stopped if a stop is requested."""
    batches = map(_with_both_gases, batches) if reference else batches
    batches = stop.until(batches) if stop else batches
    batches = console.over(batches, total=num_batches, unit="batch", desc=name)
    with ThreadPoolExecutor() as pool, preflight.out_of_memory(**eval_batch_shape(config)):
        measure = functools.partial(per_example.measure_surface_distances, pool)
        results = collect_results(eval_fn, model, batches, measure)
    return {key: values for key, values in results.items() if not (reference and key.startswith("ch4_"))}


def save_picture(folder: Path, name: str, by_products: ByProducts, draw: Callable[..., np.ndarray], *args) -> None:
    """Draws a picture of the report, and writes it to `pictures/`."""
    path = folder / "pictures" / f"{name}.png"
    with by_products.attempt("pictures", str(path)):
        overlays.save(path, draw(*args))


def _with_both_gases(batch):
    return {**batch, "modality_mask": jnp.broadcast_to(batch["valid"][:, None], (len(batch["valid"]), 2)) * 1.0}


def _further_scores(results):
    """Computes surface distances by gas and pooled, calibration, and the number of independent groups."""
    scores, distances = {}, []
    for gas in GASES:
        if f"{gas}_hd95" in results:
            distances.append([results[f"{gas}_{name}"] for name in ("hd95", "asd", "missed")])
            scores |= {f"{gas}/{name}": value for name, value in surface_metrics(*distances[-1]).items()}
    if distances:
        scores |= surface_metrics(*np.concatenate(distances, axis=1))
    if "probabilities" in results:
        ece = expected_calibration_error(results["probabilities"], results["labels"])
        scores["expected_calibration_error"] = ece
    return scores | {"groups": len(np.unique(results["recording_index"]))}


def intervals(results: Results) -> dict[str, tuple[float, float]]:
    """Computes 95 % intervals of the headline metrics, and of those of whole recordings."""
    counts = {name: values for name, values in results.items() if name.endswith("_confusion")}

    def headlines(counts):
        metrics = compute_metrics(counts)
        return {name: metrics[name] for name in HEADLINES if name in metrics}

    found = bootstrap_intervals(counts, results["recording_index"], headlines)
    if "cls_confusion" in results:
        found |= bootstrap_intervals(*recording_counts(results), recording_metrics)
    return found


def choose_examples(table: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Chooses examples to draw: evenly spread ones, and those of the lowest and highest loss, one per recording."""
    count = len(table["example_index"])
    rows = {"overlays": np.linspace(0, count - 1, min(SHOWN, count)).astype(int)}
    loss = table.get("loss", np.full(count, np.nan))
    scored = np.flatnonzero(~np.isnan(loss))
    by_loss = scored[np.argsort(loss[scored], kind="stable")]
    for kind, order in (("best", by_loss), ("worst", by_loss[::-1])):
        _, first = np.unique(table["recording_index"][order], return_index=True)
        rows[kind] = order[np.sort(first)][:SHOWN]
    # The examples may have no loss, such as single frames of a gas that the model does not read, or no model at all.
    return {kind: table["example_index"][chosen] for kind, chosen in rows.items() if len(chosen)}


def identity(dataset: Dataset) -> dict[str, str]:
    """Returns the entries of `metrics.json` that say which dataset was scored."""
    return {"dataset": dataset.name, "dataset_digest": dataset.digest}


def _earlier_scores(path, source, console):
    """Returns what a file of metrics holds of the same step and dataset; nothing if it is of others."""
    try:
        flat = read_json(path)
        flat.setdefault("dataset_digest", source["dataset_digest"])  # which an earlier version did not write
    except FileNotFoundError:
        return {}
    except UserError as error:
        console.warn(f"{error} It is written anew.")
        return {}
    return flat if source.items() <= flat.items() else {}


def _write_metrics(path, content, scores, intervals, dataset):
    """Writes flat keys, NaN (a class that never occurs) as null."""
    flat = content | dataset.bounds
    if dataset.leak:
        flat["leak"] = dataset.leak
    for split, metrics in scores.items():
        flat |= {f"{split}/{name}": _finite(value) for name, value in metrics.items()}
        flat |= {f"{split}/{name}/interval": [_finite(end) for end in ends] for name, ends in intervals[split].items()}
        flat[f"{split}/absent"] = absent_classes(metrics)
    replace_text(path, json.dumps(flat, indent=2) + "\n")


def _finite(value):
    return None if math.isnan(value) else value


def _print_summary(title, scores, intervals, dataset):
    print(f"\n{title}, with 95 % intervals over recordings")
    print(metrics_table(scores, intervals))
    for split, values in scores.items():
        if values["groups"] < FEW_GROUPS:
            print(f"{split}: only {values['groups']} independent groups of recordings; its intervals mean little")
        if absent := absent_classes(values):
            print(f"{split}: absent from truth and prediction, so left out of the means: {', '.join(absent)}")
        if math.isnan(values.get("mean_iou", 0.0)):
            print(f"WARNING: {split}: neither truth nor prediction has a pixel of gas, so masks have no mean score")
    for name, value in dataset.bounds.items():
        print(f"{name} on test: {value:.3f}")
    if dataset.leak:
        print(f"WARNING: {dataset.leak}")
