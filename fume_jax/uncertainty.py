"""How far scores and probabilities can be trusted: intervals by recording, and calibration. On the host, in numpy."""

from collections.abc import Callable

import numpy as np


def reliability(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Examples by confidence, the probability of the most probable class (Guo et al. 2017, arXiv:1706.04599).

    Bins are of equal width and hold their lower edge; the last one holds 1 too.

    Args:
      probabilities: float [N, C], rows sum to 1.
      labels: int [N], the true classes.
      bins: how many.

    Returns:
      Each [bins]: examples (int), their mean confidence and their accuracy (float, NaN where there are none).
    """
    confidence, correct = probabilities.max(-1), probabilities.argmax(-1) == labels
    examples = np.histogram(confidence, bins, (0, 1))[0]
    sums = (np.histogram(confidence, bins, (0, 1), weights=w.astype(float))[0] for w in (confidence, correct))
    with np.errstate(invalid="ignore"):
        return examples, *(total / examples for total in sums)


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy of the bins of `reliability`, weighted by examples; NaN without any.

    torchmetrics' `MulticlassCalibrationError(norm="l1")`, but that puts a confidence of exactly 1 in a bin of its own.
    """
    examples, confidence, accuracy = reliability(probabilities, labels, bins)
    if not examples.sum():
        return np.nan
    return float(np.nansum(examples * np.abs(confidence - accuracy)) / examples.sum())


def bootstrap_intervals(
    counts: dict[str, np.ndarray],
    groups: np.ndarray,
    statistic: Callable[[dict[str, np.ndarray]], dict[str, float]],
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of metrics by the cluster bootstrap (Field & Welsh 2007, JRSS B 69:369).

    Examples of one group depend on each other, so whole groups are drawn, with replacement and as many as there are.
    Intervals are too narrow with few groups, say below 20.

    Args:
      counts: by name, numbers [N, ...] of each example, which add up over examples, such as confusion counts.
      groups: int [N], the group of each example: `recording_index`; no padding.
      statistic: metrics by name of summed counts [...], such as `compute_metrics`.
      resamples: how often groups are drawn.
      seed: of the draws.
      level: share of the resamples that an interval holds.

    Returns:
      Lower and upper end for each name that `statistic` returns. Resamples in which a metric is NaN do not count for
      it; an interval is NaN if all are, or if there are fewer than two groups.
    """
    names, member = np.unique(groups, return_inverse=True)
    by_group = {}
    for key, values in counts.items():
        # Pixels of many frames need 64 bits.
        by_group[key] = np.zeros((len(names), *values.shape[1:]), np.result_type(values, np.int64))
        np.add.at(by_group[key], member, values)
    results = statistic({key: values.sum(0) for key, values in by_group.items()})
    if len(names) < 2:
        return dict.fromkeys(results, (np.nan, np.nan))
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), resamples)
    sums = {key: np.tensordot(drawn, values, 1) for key, values in by_group.items()}
    draws = [statistic({key: values[i] for key, values in sums.items()}) for i in range(resamples)]
    return {name: _interval(np.array([draw[name] for draw in draws]), level) for name in results}


def _interval(values, level):
    values = values[~np.isnan(values)]
    if not len(values):
        return np.nan, np.nan
    return tuple(np.quantile(values, [(1 - level) / 2, (1 + level) / 2]).tolist())
