"""Intervals of metrics by resampling groups of recordings; on the host, in numpy."""

from collections.abc import Callable, Mapping

import numpy as np


def bootstrap_intervals(
    counts: dict[str, np.ndarray],
    groups: np.ndarray,
    statistic: Callable[[dict[str, np.ndarray]], dict[str, float]],
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Computes percentile intervals of metrics by the cluster bootstrap (Field & Welsh 2007, JRSS B 69:369).

    Examples of one group depend on each other, so whole groups are drawn, with replacement and as many as there are.
    Intervals are too narrow with few groups, say below 20.

    Args:
      counts: by name, numbers [N, ...] of each example, which add up over examples, such as confusion counts.
      groups: int [N], the group of each example: `recording_index`; no padding.
      statistic: maps summed counts [...] to metrics by name, such as `compute_metrics`.
      level: share of the resamples that an interval holds. Those in which a metric is NaN do not count for it; its
        interval is NaN if all are, or if there are fewer than two groups.
    """
    by_group = sum_by_group(counts, groups)
    if len(np.unique(groups)) < 2:
        metrics = statistic({key: values.sum(0) for key, values in by_group.items()})
        return dict.fromkeys(metrics, (np.nan, np.nan))
    draws = draw_metrics(by_group, statistic, resamples, seed)
    return {name: percentile_ends(values, level) for name, values in draws.items()}


def sum_by_group(counts: dict[str, np.ndarray], groups: np.ndarray) -> dict[str, np.ndarray]:
    """Sums numbers [N, ...] of examples over those of each group, int [N]: [G, ...] in ascending order of groups."""
    names, member = np.unique(groups, return_inverse=True)
    by_group = {}
    for key, values in counts.items():
        # Pixels of many frames need 64 bits.
        by_group[key] = np.zeros((len(names), *values.shape[1:]), np.result_type(values, np.int64))
        np.add.at(by_group[key], member, values)
    return by_group


def draw_metrics(
    by_group: Mapping[str, np.ndarray], statistic: Callable, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Draws as many groups as there are, with replacement, `resamples` times: the metrics of each draw, float [B]."""
    count = len(next(iter(by_group.values())))
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)
    sums = {key: np.tensordot(drawn, values, 1) for key, values in by_group.items()}
    found = [statistic({key: values[i] for key, values in sums.items()}) for i in range(resamples)]
    return {name: np.array([metrics[name] for metrics in found]) for name in found[0]}


def percentile_ends(draws: np.ndarray, level: float) -> tuple[float, float]:
    """Returns the ends between which a share of the draws lies, which are not NaN; NaN if all are."""
    draws = draws[~np.isnan(draws)]
    return tuple(np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]).tolist()) if len(draws) else (np.nan, np.nan)
