"""Scoring of a model on a split, and of a finished run."""

import functools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import jax
import ml_collections
import numpy as np

from fume_jax import build, pictures, sharding
from fume_jax.input_pipeline import Dataset
from fume_jax.metrics import compute_metrics
from fume_jax.monitoring import metrics_table


def count(eval_fn: Callable, model: dict, batches: Iterable[dict]) -> dict[str, np.ndarray]:
    """Sums what `eval_fn` counts over batches, 64 bits wide."""
    wide = {np.dtype(np.int32): np.int64, np.dtype(np.float32): np.float64}
    totals, running = {}, None

    def add(counts):
        for name, value in jax.device_get(counts).items():
            totals[name] = totals.get(name, 0) + value.astype(wide[value.dtype])

    for batch in batches:
        counts = eval_fn(model["params"], model["batch_stats"], batch)
        # Fetched one batch late: the device never waits, and no more than two batches are held at a time.
        if running is not None:
            add(running)
        running = counts
    add(running)
    return totals


def score(counts: dict[str, np.ndarray]) -> dict[str, float]:
    """Metrics from summed counts, and the mean of each loss term over batches, weighted by their examples."""
    losses = {name: float(total / counts["examples"]) for name, total in counts.items() if name.endswith("loss")}
    return compute_metrics(counts) | losses


def evaluate_run(config: ml_collections.ConfigDict, workdir: str, splits: Sequence[str] = ("val", "test")) -> None:
    """Scores the best checkpoint of a run: prints a table, writes `metrics.json` and `pictures/`.

    Raises:
      UserError: if the run has no checkpoint, or the dataset is gone or lacks a split.
    """
    mesh = sharding.create_mesh()
    model, step = build.best_model(config, workdir, mesh)
    dataset = Dataset(config.data.path)
    for split in splits:
        dataset.split(split)  # a misspelt one is refused before anything is written
    eval_fn, predict_fn = build.eval_and_predict_fns(config)
    by_split = {}
    for split in splits:
        batches = functools.partial(build.evaluation_batches, config, dataset, mesh, split)
        counts = count(eval_fn, model, batches())
        by_split[split] = score(counts)
        if "cls_confusion" in counts:
            confusion = pictures.confusion_picture(counts["cls_confusion"])
            pictures.save(Path(workdir) / "pictures" / f"{split}_confusion.png", confusion)
        panel = overlay_panel(predict_fn, model, batches(), 8)
        pictures.save(Path(workdir) / "pictures" / f"{split}_overlays.png", panel)
    _write_metrics(Path(workdir) / "metrics.json", step, by_split, dataset)
    print(f"\nBest checkpoint: step {step} of {workdir}\n{metrics_table(by_split)}")
    for name, value in dataset.bounds.items():
        print(f"{name} on test: {value:.3f}")
    if dataset.leak:
        print(f"WARNING: {dataset.leak}")


def overlay_panel(predict_fn: Callable, model: dict, batches: Iterable[dict], count: int) -> np.ndarray:
    """Annotated and predicted overlays of `count` pairs of the first batch."""
    batch = next(iter(batches))
    outputs = predict_fn(model["params"], model["batch_stats"], batch)
    return pictures.pair_panel(jax.device_get(batch), jax.device_get(outputs), count)


def _write_metrics(path, step, by_split, dataset):
    """Flat keys; a metric without meaning (a class that never occurs) is null. Splits scored before are kept."""
    try:
        flat = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        flat = {}
    if flat.get("step") != step:
        flat = {}
    flat |= {"step": step} | dataset.bounds
    if dataset.leak:
        flat["leak"] = dataset.leak
    for split, metrics in by_split.items():
        flat |= {f"{split}/{name}": None if math.isnan(value) else value for name, value in metrics.items()}
    path.write_text(json.dumps(flat, indent=2) + "\n")
