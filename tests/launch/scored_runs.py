"""Run folders as evaluation leaves them, of examples whose classes and plumes are right or wrong as a test says."""

import json

import numpy as np

from fume_jax.evaluation import per_example
from fume_jax.evaluation.evaluator import score_results

WEIGHTS = {"cls_weight": 1.0, "seg_weight": 1.0}


def write_run(folder, recordings, right, gas=5, *, digest="abc", classes=True, config=True):
    """Writes a scored run: pairs of the recordings, classes 0 and 2 in turn by recording, each right or not.

    Of the 10 pixels of gas in each CO2 frame the model finds `gas`, a number or one for each pair. With `config` the
    folder gets one, which is empty.
    """
    recordings, right = np.asarray(recordings), np.asarray(right, bool)
    n, labels = len(recordings), recordings % 2 * 2
    predicted = np.where(right, labels, 2 - labels)
    probabilities = np.full((n, 3), 0.1) + 0.7 * np.eye(3)[predicted]
    co2 = np.zeros((n, 3, 3), int)
    co2[:, 0, 0], co2[:, 2, 2] = 90, gas
    co2[:, 2, 0] = 10 - co2[:, 2, 2]
    zeros, unknown = np.zeros(n, np.float32), np.full(n, np.nan)
    results = {
        "labels": labels,
        "valid": np.ones(n, bool),
        "modality_mask": np.tile([1.0, 0.0], (n, 1)),
        "example_index": np.arange(n),
        "recording_index": recordings,
        "co2_confusion": co2,
        "co2_hd95": unknown,
        "co2_asd": unknown,
        "co2_missed": zeros,
        "co2_seg_loss": zeros,
    }
    if classes:
        confusion = np.zeros((n, 3, 3), int)
        confusion[np.arange(n), labels, predicted] = 1
        results |= {"cls_confusion": confusion, "probabilities": probabilities, "cls_loss": zeros}
    per_example.write_table(folder / "examples" / "test.csv", per_example.columns(results, **WEIGHTS))
    scores = {f"test/{name}": value for name, value in score_results(results, **WEIGHTS).items()}
    scores = {name: None if value != value else value for name, value in scores.items()}
    (folder / "metrics.json").write_text(json.dumps(scores | {"dataset_digest": digest}))
    if config:
        (folder / "config.json").write_text("{}")
