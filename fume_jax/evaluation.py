"""Scoring of a model on a split: one pass that keeps a little of every example, and the metrics of all of them."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from fume_jax import sharding
from fume_jax.losses import mean_losses
from fume_jax.metrics import compute_metrics

Results = dict[str, np.ndarray]


def collect(eval_fn: Callable, model: dict, batches: Iterable[dict], also: Callable | None = None) -> Results:
    """What `eval_fn` says of every valid example of some batches, arrays [N, ...] in the order of `example_index`.

    Each process looks at its share of the examples; all return the same.

    Args:
      eval_fn: compiled `train_step.eval_step`, of params, batch_stats and batch.
      model: `params` and `batch_stats`.
      batches: on the devices.
      also: given what `eval_fn` says of this process's share of a batch, on the host, it returns the arrays [B, ...]
        that are kept in its place.
    """
    kept, running = [], None

    def fetch(results):
        results = sharding.own_share(results)
        kept.append(results if also is None else also(results))

    for batch in batches:
        results = eval_fn(model["params"], model["batch_stats"], batch)
        # Fetched one batch late: the device never waits, and no more than two batches are held at a time.
        if running is not None:
            fetch(running)
        running = results
    fetch(running)
    results = sharding.put_together({name: np.concatenate([values[name] for values in kept]) for name in kept[0]})
    valid = np.flatnonzero(results["valid"])
    in_order = valid[np.argsort(results["example_index"][valid])]
    return {name: values[in_order] for name, values in results.items()}


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
