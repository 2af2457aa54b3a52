"""Statistics over independent groups of recordings: intervals, paired comparisons, effect sizes; in numpy and scipy.

Counts are given as sums by group, arrays [G, ...] by name, see `bootstrap.sum_by_group`. A statistic maps sums over
groups, arrays [...] by name, to metrics by name.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import optimize, special, stats

from fume_jax.learning.bootstrap import draw_metrics, percentile_ends

Counts = Mapping[str, np.ndarray]
Statistic = Callable[[Counts], dict[str, float]]

# With fewer groups intervals mean little, and a correction of them even less.
FEW_GROUPS = 20
RESAMPLES, LEVEL = 2000, 0.95
BCA, PERCENTILE = "BCa", "percentile"


@dataclasses.dataclass(frozen=True)
class Resampled:
    """Metrics of all groups, `values`, and of resamples of them, `draws` float [B] by name; see `resample`."""

    values: Mapping[str, float]
    draws: Mapping[str, np.ndarray]
    groups: int
    seed: int


@dataclasses.dataclass(frozen=True)
class Interval:
    """Ends of an interval, NaN if there is none, and the method that they are computed by."""

    low: float
    high: float
    method: str


@dataclasses.dataclass(frozen=True)
class Difference:
    """Difference of a metric of two models with its interval, and the p-value of no difference; NaN if unknown."""

    value: float
    low: float
    high: float
    p: float


@dataclasses.dataclass(frozen=True)
class Discordance:
    """Cases that only the main or only the other model gets right, their ratio with its interval, and a p-value."""

    main_alone: int
    other_alone: int
    ratio: float
    low: float
    high: float
    p: float


def mean_over_runs(statistic: Statistic) -> Statistic:
    """Returns the statistic of counts [S, ...] of several runs: the mean of those of the runs.

    Resampling its groups keeps the runs together, so that an interval is that of the mean run.
    """

    def mean(counts):
        runs = len(next(iter(counts.values())))
        found = [statistic({name: values[run] for name, values in counts.items()}) for run in range(runs)]
        return {name: float(np.mean([metrics[name] for metrics in found])) for name in found[0]}

    return mean


def resample(by_group: Counts, statistic: Statistic, *, resamples: int = RESAMPLES, seed: int = 0) -> Resampled:
    """Computes metrics of all groups and of resamples of them, with replacement and as many as there are.

    The same number of groups and the same seed draw the same groups, so that two models can be compared.
    """
    values = statistic({name: values.sum(0) for name, values in by_group.items()})
    draws = draw_metrics(by_group, statistic, resamples, seed)
    return Resampled(values, draws, len(next(iter(by_group.values()))), seed)


def intervals(found: Resampled, by_group: Counts, statistic: Statistic, *, level: float = LEVEL) -> dict[str, Interval]:
    """Computes intervals of metrics: bias-corrected and accelerated from 20 groups on, by percentiles of fewer.

    So does a metric that some resample or jackknife lacks, as of a class that it has no case of: draws that are NaN do
    not count. There is no interval of fewer than two groups.

    Args:
      found: what `resample` returned of `by_group` and `statistic`.
      level: share of the resamples that an interval holds.
    """
    total, jackknife = {name: values.sum(0) for name, values in by_group.items()}, {}
    if found.groups >= FEW_GROUPS:
        left_out = [statistic({name: total[name] - by_group[name][i] for name in total}) for i in range(found.groups)]
        jackknife = {name: np.array([metrics[name] for metrics in left_out]) for name in found.values}
    ends = {}
    for name, value in found.values.items():
        draws, left_out = found.draws[name], jackknife.get(name, np.array([math.nan]))
        low, high, method = math.nan, math.nan, BCA
        if np.isfinite(draws).all() and np.isfinite(left_out).all():
            low, high = bca_ends(value, draws, left_out, level=level)
        if math.isnan(low):
            low, high, method = *_percentiles(draws, found.groups, level), PERCENTILE
        ends[name] = Interval(low, high, method)
    return ends


def bca_ends(value: float, draws: np.ndarray, jackknife: np.ndarray, *, level: float = LEVEL) -> tuple[float, float]:
    """Computes the ends of a bias-corrected and accelerated interval (Efron 1987, doi:10.2307/2289144).

    Args:
      value, draws: the metric of all groups and of resamples of them, float [B].
      jackknife: the metric without each of the groups in turn, float [G].

    Returns:
      The ends, those of `scipy.stats.bootstrap` of the same draws; NaN if the metric is the same whichever group is
      left out, or all draws are on one side of it.
    """
    deviations = jackknife.mean() - jackknife
    spread = (deviations**2).sum()
    below = ((draws < value).mean() + (draws <= value).mean()) / 2
    if spread == 0 or not 0 < below < 1:
        return math.nan, math.nan
    acceleration = (deviations**3).sum() / (6 * spread**1.5)
    bias = special.ndtri(below)
    shifted = bias + special.ndtri([(1 - level) / 2, (1 + level) / 2])
    shares = special.ndtr(bias + shifted / (1 - acceleration * shifted))
    return tuple(np.quantile(draws, shares).tolist())


def difference(main: Resampled, other: Resampled, name: str, *, level: float = LEVEL) -> Difference:
    """Compares a metric of two models of the same groups by the paired bootstrap: main less other.

    The interval is by percentiles. The p-value is twice the share of the resamples in which the difference is 0 or of
    the other sign, the value itself counting as one of them (Davison and Hinkley 1997, section 4.4), so that 0 lies
    outside the interval where p is below 1 - `level`. Both are NaN with fewer than two groups.

    Raises ValueError unless both have resampled the same groups.
    """
    if (main.groups, main.seed, len(main.draws[name])) != (other.groups, other.seed, len(other.draws[name])):
        raise ValueError("Expected two models whose groups are resampled alike.")
    value, draws = main.values[name] - other.values[name], main.draws[name] - other.draws[name]
    low, high = _percentiles(draws, main.groups, level)
    draws = draws[~np.isnan(draws)]
    if math.isnan(low):
        return Difference(value, low, high, math.nan)
    tail = min((draws <= 0).sum(), (draws >= 0).sum())
    return Difference(value, low, high, min(1.0, 2 * (1 + int(tail)) / (1 + len(draws))))


def mcnemar(main_right: np.ndarray, other_right: np.ndarray, *, level: float = LEVEL) -> Discordance:
    """Compares which of the same independent cases two models get right (McNemar 1947, doi:10.1007/BF02295996).

    The p-value is that of the exact binomial test of the cases that only one gets right. The ratio of their numbers is
    the odds ratio of matched pairs, and its interval comes from the Clopper-Pearson interval of their share.

    Args:
      main_right, other_right: bool [N].

    Returns:
      Numbers, ratio and p-value. The ratio is infinite if only the main model is right alone. If neither is, it is NaN,
      as is its interval, and p is 1.
    """
    main_alone, other_alone = int((main_right & ~other_right).sum()), int((other_right & ~main_right).sum())
    count = main_alone + other_alone
    if not count:
        return Discordance(0, 0, math.nan, math.nan, math.nan, 1.0)
    test = stats.binomtest(main_alone, count)
    ends = test.proportion_ci(level, method="exact")
    ratio = main_alone / other_alone if other_alone else math.inf
    return Discordance(main_alone, other_alone, ratio, _odds(ends.low), _odds(ends.high), float(test.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts the p-values of several comparisons by the step-down method of Holm (1979), www.jstor.org/stable/4615733.

    Those that are NaN stay so, and do not count as comparisons.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p)[: int((~np.isnan(p)).sum())]  # NaN comes last
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1))
    found = np.full(len(p), math.nan)
    found[order] = np.minimum(adjusted, 1.0)
    return found.tolist()


def standardized_difference(differences: np.ndarray, *, level: float = LEVEL) -> tuple[float, float, float]:
    """Computes the mean of paired differences by their standard deviation, Cohen's d_z, and its interval.

    The interval inverts the noncentral t distribution, which is exact for differences of a normal distribution
    (Steiger and Fouladi 1997, in What if there were no significance tests?).

    Args:
      differences: float [N]; those that are NaN do not count.

    Returns:
      Value and ends of the interval; all NaN if the differences are fewer than two or all the same.
    """
    differences = differences[~np.isnan(differences)]
    n = len(differences)
    spread = differences.std(ddof=1) if n > 1 else 0.0
    if spread <= 1e-9 * np.abs(differences).max(initial=0.0):  # equal but for rounding
        return math.nan, math.nan, math.nan
    value, root = float(differences.mean() / spread), math.sqrt(n)
    low, high = (_noncentrality(value * root, n - 1, share) / root for share in ((1 + level) / 2, (1 - level) / 2))
    return value, low, high


def _percentiles(draws, groups, level):
    return percentile_ends(draws, level) if groups > 1 else (math.nan, math.nan)


def _odds(share):
    return share / (1 - share) if share < 1 else math.inf


def _noncentrality(t, df, share):
    """Returns the noncentrality at which a share of the t distribution lies below `t`; NaN if `t` is too large."""

    def excess(noncentrality):
        return stats.nct.cdf(t, df, noncentrality) - share

    low = high = t
    step = 1 + abs(t)
    while excess(low) < 0:
        low -= step
    while excess(high) > 0:
        high += step
    return optimize.brentq(excess, low, high) if low < high else math.nan
