"""Scoring of a model on a split: one pass that keeps a little of every example, and the metrics of all of them."""

from collections.abc import Callable, Iterable, Mapping

import jax
import numpy as np

from fume_jax.losses import mean_losses
from fume_jax.metrics import compute_metrics

Results = dict[str, np.ndarray]


def collect(eval_fn: Callable, model: dict, batches: Iterable[dict], also: Callable | None = None) -> Results:
    """What `eval_fn` says of every valid example of some batches, arrays [N, ...].

    Args:
      eval_fn: compiled `train_step.eval_step`, of params, batch_stats and batch.
      model: `params` and `batch_stats`.
      batches: on the devices.
      also: given a batch and what `eval_fn` says of it, the latter on the host, it returns the arrays [B, ...] that are
        kept in its place.
    """
    kept, running = [], None

    def fetch(batch, results):
        results = jax.device_get(results)
        valid = results["valid"]
        if also is not None:
            results = also(batch, results)
        kept.append({name: values[valid] for name, values in results.items()})

    for batch in batches:
        results = eval_fn(model["params"], model["batch_stats"], batch)
        # Fetched one batch late: the device never waits, and no more than two batches are held at a time.
        if running is not None:
            fetch(*running)
        running = batch, results
    fetch(*running)
    return {name: np.concatenate([values[name] for values in kept]) for name in kept[0]}


def score(results: Results, *, cls_weight: float, seg_weight: float) -> dict[str, float]:
    """Metrics and losses over examples, none of which depends on the batches that they came in."""
    metrics = compute_metrics(total_counts(results))
    losses = {name: values for name, values in results.items() if name.endswith("_loss")}
    weights = {"cls_weight": cls_weight, "seg_weight": seg_weight}
    means = mean_losses(losses, results["valid"], results["modality_mask"], **weights)
    return metrics | {name: float(value) for name, value in means.items()}


def total_counts(results: Mapping[str, np.ndarray]) -> Results:
    """Sums of the confusion counts of all examples, in 64 bits."""
    return {name: values.sum(0, dtype=np.int64) for name, values in results.items() if name.endswith("_confusion")}
