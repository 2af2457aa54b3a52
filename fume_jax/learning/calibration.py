"""Calibration of predicted probabilities; on the host, in numpy."""

import numpy as np


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> tuple[np.ndarray, ...]:
    """Bins examples by confidence, the probability of the most probable class (Guo et al. 2017, arXiv:1706.04599).

    Bins are of equal width and hold their lower edge; the last one holds 1 too. `probabilities` are float [N, C], whose
    rows sum to 1, and `labels` int [N]. Returns examples (int), mean confidence and accuracy (float, NaN where there
    are none), each [bins].
    """
    confidence, correct = probabilities.max(-1), probabilities.argmax(-1) == labels
    examples = np.histogram(confidence, bins, (0, 1))[0]
    sums = (np.histogram(confidence, bins, (0, 1), weights=w.astype(float))[0] for w in (confidence, correct))
    with np.errstate(invalid="ignore"):
        return examples, *(total / examples for total in sums)


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Averages the gap of confidence and accuracy in the bins of `reliability`, weighted by examples; NaN without any.

    Equals torchmetrics' `MulticlassCalibrationError(norm="l1")`, which however bins a confidence of exactly 1 alone.
    """
    examples, confidence, accuracy = reliability(probabilities, labels, bins)
    if not examples.sum():
        return np.nan
    return float(np.nansum(examples * np.abs(confidence - accuracy)) / examples.sum())
