"""Scores a model on a split: one pass collects results of every example, from which metrics are computed."""

import functools
from collections.abc import Callable, Iterable, Mapping

import jax
import ml_collections
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from fume_jax.config import abstract_model, create_example_losses
from fume_jax.learning import step as steps
from fume_jax.learning.losses import mean_losses
from fume_jax.learning.metrics import compute_metrics, false_alarms, recording_metrics
from fume_jax.learning.recording_class import recording_confusions
from fume_jax.models.attention_maps import attention_maps
from fume_jax.runtime.mesh import all_gather, batch_sharding, local_rows
from fume_jax.runtime.prefetch import one_ahead

Results = dict[str, np.ndarray]


def create_eval_fns(
    config: ml_collections.ConfigDict, mesh: Mesh, *, flips: bool = False, masks: bool = False
) -> tuple[Callable, Callable]:
    """Creates compiled `eval_step` and `predict_step`, functions of (params, batch_stats, batch).

    With `flips` both average over each frame and its mirror image; with `masks` `eval_step` returns masks too.
    """
    predict_fn = functools.partial(steps.predict_step, graphdef=_eval_graphdef(config))
    if flips:
        predict_fn = functools.partial(steps.flip_step, predict_fn=predict_fn)
    losses_fn = create_example_losses(config)
    eval_fn = functools.partial(steps.eval_step, predict_fn=predict_fn, losses_fn=losses_fn, masks=masks)
    sharding = batch_sharding(mesh)
    return jax.jit(eval_fn, out_shardings=sharding), jax.jit(predict_fn, out_shardings=sharding)


def create_attention_fn(config: ml_collections.ConfigDict, mesh: Mesh) -> Callable:
    """Creates compiled `attention_maps`, a function of (params, batch_stats, batch)."""
    graphdef = _eval_graphdef(config)

    def maps(params, batch_stats, batch):
        network = nnx.merge(graphdef, params, batch_stats)
        return attention_maps(network, batch["co2_frame"], batch["ch4_frame"], batch["modality_mask"])

    return jax.jit(maps, out_shardings=batch_sharding(mesh))


def _eval_graphdef(config):
    network = abstract_model(config)
    network.eval()
    graphdef, _, _ = steps.split_model(network)
    return graphdef


def collect_results(
    eval_fn: Callable, model: dict, batches: Iterable[dict], reduce_fn: Callable[[Results], Results] | None = None
) -> Results:
    """Collects the results of every valid example, arrays [N, ...] in the order of `example_index`.

    Each process evaluates its share of the examples; all return the results of all. `eval_fn` is the compiled
    `eval_step`, and `model` has `params` and `batch_stats`. `reduce_fn` maps this process's results of a batch, on the
    host, to the arrays [B, ...] to keep.
    """
    # Results are fetched one batch late: the device never waits, and at most two batches are in memory.
    running = one_ahead(eval_fn(model["params"], model["batch_stats"], batch) for batch in batches)
    rows = map(local_rows, running)
    kept = list(rows if reduce_fn is None else map(reduce_fn, rows))
    results = all_gather({name: np.concatenate([values[name] for values in kept]) for name in kept[0]})
    valid = np.flatnonzero(results["valid"])
    in_order = valid[np.argsort(results["example_index"][valid])]
    return {name: values[in_order] for name, values in results.items()}


def score_results(results: Results, *, cls_weight: float, seg_weight: float) -> dict[str, float]:
    """Computes metrics, and losses if there are any, over all examples; neither depends on how they were batched.

    Of frames without gas, `false_alarms` are among the metrics. If the model classifies, so are those of whole
    recordings as `recording/{name}`, see `recording_counts`, and the number of recordings as `recording/count`.
    """
    metrics = compute_metrics(total_counts(results)) | false_alarms(results)
    if "cls_confusion" in results:
        counts, _ = recording_counts(results)
        metrics |= recording_metrics(total_counts(counts)) | {"recording/count": len(counts["cls_confusion"])}
    losses = {name: values for name, values in results.items() if name.endswith("_loss")}
    if losses:
        valid, modality_mask = results["valid"], results["modality_mask"]
        means = mean_losses(losses, valid, modality_mask, cls_weight=cls_weight, seg_weight=seg_weight)
        metrics |= {name: float(value) for name, value in means.items()}
    return metrics


def recording_counts(results: Results) -> tuple[Results, np.ndarray]:
    """Returns `cls_confusion` of every recording, int [R, 3, 3], and its `recording_index`, int [R].

    Without `probabilities` the majority of the classes decides, of two the first in the order of `CLASSES`.
    """
    # Each confusion has a single 1, in the column of the predicted class.
    probabilities = results.get("probabilities", results["cls_confusion"].sum(1))
    confusions, recordings = recording_confusions(probabilities, results["labels"], results["recording_index"])
    return {"cls_confusion": confusions}, recordings


def total_counts(results: Mapping[str, np.ndarray]) -> Results:
    """Sums the confusion counts of all examples, in 64 bits."""
    return {name: values.sum(0, dtype=np.int64) for name, values in results.items() if name.endswith("_confusion")}
