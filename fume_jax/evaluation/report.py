"""The full report on a run's best checkpoint: `metrics.json`, a table of examples, and pictures."""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from fume_jax.config import eval_batch_shape, get_architecture, task_weights
from fume_jax.data.loader import Loader
from fume_jax.evaluation import overlays, per_example, plots
from fume_jax.evaluation.evaluator import collect_results, create_attention_fn, create_eval_fns, score_results
from fume_jax.evaluation.tables import metrics_table
from fume_jax.learning.bootstrap import bootstrap_intervals
from fume_jax.learning.calibration import expected_calibration_error
from fume_jax.learning.metrics import HEADLINES, absent_classes, compute_metrics
from fume_jax.learning.surface_distance import boundary_metrics
from fume_jax.runtime import preflight
from fume_jax.runtime.console import Console
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import replace_text
from fume_jax.runtime.mesh import create_mesh, replicate_to_hosts
from fume_jax.runtime.preemption import StopRequest
from fume_jax.schema import GASES

Curve = tuple[list[int], list[float]]  # steps and values

# Intervals from fewer groups of recordings than this mean little.
FEW_GROUPS = 20
# Pairs in a picture of examples.
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
    tta: bool = False,
    protocol: str = "present",
    stop: StopRequest | None = None,
) -> dict[str, dict[str, float]]:
    """Scores a model, prints a table, and writes the scores, a table of examples and pictures to a run folder.

    All processes share the work; the first of them prints and writes.

    Args:
      config: of the run.
      workdir: folder of the run; it receives `metrics.json`, `examples/SPLIT.csv` and `pictures/`.
      model: `params` and `batch_stats`.
      step: that they were trained to.
      loader: of the dataset.
      splits: to score.
      curves: scalars that training logged, by tag; they are drawn.
      tta: average predictions over each frame and its mirror image.
      protocol: `present` scores the gases that are there. `reference` scores as the PyTorch original did, to compare
        with figures published of it: CO2 masks alone, and every pair as if it had both gases, an absent one being a
        frame of zeros without a plume.
      stop: if requested, ends this before anything of the split at hand is written.

    Returns:
      Metrics by split. Unless `tta` and `protocol` are as usual, a split's name says so, here and in the files.

    Raises:
      UserError: if the dataset lacks a split, or the protocol does not fit.
      Stopped: if `stop` is requested meanwhile.
    """
    if protocol == "reference" and "co2" not in get_architecture(config).segmented:
        raise UserError("--protocol=reference scores masks of CO2, which this model does not predict.")
    console, mesh, dataset = Console(quiet=config.log.quiet), create_mesh(), loader.dataset
    for split in splits:
        dataset.split(split)  # a misspelt one is reported before anything is written
    eval_fn, predict_fn = create_eval_fns(config, mesh, flips=tta, masks=True)
    see_fns = predict_fn, create_attention_fn(config, mesh)
    reference = protocol == "reference"
    scores, intervals, first = {}, {}, jax.process_index() == 0
    for split in splits:
        name = split + ("_tta" if tta else "") + ("_reference" if reference else "")
        batches = loader.split(split)
        batches = map(_as_the_reference, batches) if reference else batches
        batches = stop.until(batches) if stop else batches
        batches = console.over(batches, total=loader.num_batches(split), unit="batch", desc=name)
        with ThreadPoolExecutor() as pool, preflight.out_of_memory(**eval_batch_shape(config)):
            measure = functools.partial(per_example.measure_boundaries, pool)
            results = collect_results(eval_fn, model, batches, measure)
        if reference:
            results = {key: values for key, values in results.items() if not key.startswith("ch4_")}
        scores[name] = score_results(results, **task_weights(config)) | _further_scores(results)
        intervals[name] = _intervals(results)
        table = per_example.columns(results, **task_weights(config))
        drawn = _charts(results, scores[name]) if first else {}
        for kind, indices in _chosen(table).items():
            batch = loader.examples(split, indices)
            batch = _as_the_reference(batch) if reference else batch
            seen = replicate_to_hosts((batch, *(fn(**model, batch=batch) for fn in see_fns)))
            drawn |= _panels(kind, *seen, count=len(indices)) if first else {}
        if first:
            per_example.write_table(Path(workdir) / "examples" / f"{name}.csv", table)
            for kind, picture in drawn.items():
                overlays.save(Path(workdir) / "pictures" / f"{name}_{kind}.png", picture)
    if first:
        overlays.save(Path(workdir) / "pictures" / "training.png", plots.training_chart(curves))
        _write_metrics(Path(workdir) / "metrics.json", step, scores, intervals, dataset)
        _print_summary(workdir, step, scores, intervals, dataset)
    return scores


def _as_the_reference(batch):
    """Every pair as if it had both gases."""
    return {**batch, "modality_mask": jnp.broadcast_to(batch["valid"][:, None], (len(batch["valid"]), 2)) * 1.0}


def _further_scores(results):
    """Boundary distances by gas and pooled, calibration, and how many independent groups of recordings there are."""
    scores = {}
    measured = {
        gas: [results[f"{gas}_{name}"] for name in ("hd95", "asd", "missed")]
        for gas in GASES
        if f"{gas}_hd95" in results
    }
    for gas, values in measured.items():
        scores |= {f"{gas}/{name}": value for name, value in boundary_metrics(*values).items()}
    if measured:
        scores |= boundary_metrics(*np.concatenate(list(measured.values()), axis=1))
    if "probabilities" in results:
        ece = expected_calibration_error(results["probabilities"], results["labels"])
        scores["expected_calibration_error"] = ece
    return scores | {"groups": len(np.unique(results["recording_index"]))}


def _intervals(results):
    """95 % intervals of the headline metrics."""
    counts = {name: values for name, values in results.items() if name.endswith("_confusion")}

    def headlines(counts):
        metrics = compute_metrics(counts)
        return {name: metrics[name] for name in HEADLINES if name in metrics}

    return bootstrap_intervals(counts, results["recording_index"], headlines)


def _charts(results, scores):
    drawn = {"classes": plots.classes_chart(scores)}
    if "probabilities" in results:
        drawn["confusion"] = plots.confusion_chart(results["cls_confusion"].sum(0))
        drawn["reliability"] = plots.reliability_chart(results["probabilities"], results["labels"])
    return drawn


def _panels(kind, batch, outputs, attention, count):
    """Pictures of the first `count` pairs of a batch: overlays, and where the attention looks if there is any."""
    drawn = {kind: overlays.pair_panel(batch, outputs, count)}
    if attention:
        drawn[f"{kind}_attention"] = overlays.attention_panel(batch, attention, count)
    return drawn


def _chosen(table):
    """Which examples to draw: some of all, those of the lowest loss and those of the highest, of a recording one."""
    spread = np.linspace(0, len(table["loss"]) - 1, min(SHOWN, len(table["loss"]))).astype(int)
    rows = {"overlays": spread}
    scored = np.flatnonzero(~np.isnan(table["loss"]))
    by_loss = scored[np.argsort(table["loss"][scored], kind="stable")]
    for kind, order in (("best", by_loss), ("worst", by_loss[::-1])):
        _, first = np.unique(table["recording_index"][order], return_index=True)
        rows[kind] = order[np.sort(first)][:SHOWN]
    # None is best or worst where no example has a loss, such as single frames of a gas that the model does not read.
    return {kind: table["example_index"][chosen] for kind, chosen in rows.items() if len(chosen)}


def _write_metrics(path, step, scores, intervals, dataset):
    """Flat keys; a metric without meaning (a class that never occurs) is null. Earlier scores of the same stay."""
    try:
        flat = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        flat = {}
    source = {"step": step, "dataset": dataset.name}
    if not source.items() <= flat.items():
        flat = {}
    flat |= source | dataset.bounds
    if dataset.leak:
        flat["leak"] = dataset.leak
    for split, metrics in scores.items():
        flat |= {f"{split}/{name}": _finite(value) for name, value in metrics.items()}
        flat |= {f"{split}/{name}/interval": [_finite(end) for end in ends] for name, ends in intervals[split].items()}
        flat[f"{split}/absent"] = absent_classes(metrics)
    replace_text(path, json.dumps(flat, indent=2) + "\n")


def _finite(value):
    return None if math.isnan(value) else value


def _print_summary(workdir, step, scores, intervals, dataset):
    print(f"\nBest checkpoint: step {step} of {workdir}, with 95 % intervals over recordings")
    print(metrics_table(scores, intervals))
    for split, values in scores.items():
        if values["groups"] < FEW_GROUPS:
            print(f"{split}: only {values['groups']} independent groups of recordings; its intervals mean little")
        if absent := absent_classes(values):
            print(f"{split}: absent from truth and prediction, and left out of the means: {', '.join(absent)}")
    for name, value in dataset.bounds.items():
        print(f"{name} on test: {value:.3f}")
    if dataset.leak:
        print(f"WARNING: {dataset.leak}")
    print(f"more in {workdir}/metrics.json, {workdir}/examples and {workdir}/pictures")
