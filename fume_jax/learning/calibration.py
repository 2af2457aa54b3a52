"""Calibration of predicted probabilities; on the host, in numpy."""

import math

import numpy as np
from scipy import optimize, special

# Temperatures beyond these are those of too few examples, all of them right or all of them wrong.
TEMPERATURES = 0.1, 10.0
# Fewer examples say nothing about a temperature.
FEWEST = 20
# Share of the validation examples that are sure enough for their class to be used.
COVERAGE = 0.8


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


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Finds the temperature by which `soften` makes labels most likely (Guo et al. 2017, arXiv:1706.04599).

    `probabilities` are float [N, C] and `labels` int [N]. The result is 1, which changes nothing, where they do not
    tell: of fewer than `FEWEST` examples, or where it would not be within `TEMPERATURES`.
    """
    if len(labels) < FEWEST:
        return 1.0
    logits, own = _logits(probabilities), (np.arange(len(labels)), labels)

    def loss(logarithm):
        return -special.log_softmax(logits / np.exp(logarithm), -1)[own].mean()

    found = float(np.exp(optimize.minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))
    return 1.0 if np.isclose(found, TEMPERATURES, rtol=0.01).any() else found


def soften(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Divides the logits behind probabilities, float [..., C], by a temperature; above 1 they come closer together."""
    return special.softmax(_logits(probabilities) / temperature, -1)


def confidence_at(probabilities: np.ndarray, coverage: float = COVERAGE) -> float:
    """Returns the confidence that the surest `coverage` of the examples have at least; NaN without examples.

    To keep these and abstain from the others is selective classification by the softmax response (Geifman & El-Yaniv
    2017, arXiv:1705.08500). `probabilities` are float [N, C].
    """
    if not len(probabilities):
        return np.nan
    falling = -np.sort(-probabilities.max(-1))
    return float(falling[math.ceil(coverage * len(falling)) - 1])


def risk_coverage(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the shares of examples that some limits of the confidence keep, and the share of errors among these.

    `probabilities` are float [N, C] with N >= 1, and `labels` int [N]. Both results are float [M], of M different
    confidences, and the shares kept increase up to 1.
    """
    confidence, wrong = probabilities.max(-1), probabilities.argmax(-1) != labels
    order = np.argsort(-confidence, kind="stable")
    # Examples of one confidence are kept or left together.
    last = np.flatnonzero(np.append(np.diff(confidence[order]) != 0, True))
    return (last + 1) / len(labels), np.cumsum(wrong[order])[last] / (last + 1)


def _logits(probabilities):
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny, dtype=np.float64))
