"""Statistics over groups: against scipy, cases done by hand, and what a test of no difference promises."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fume_jax.learning import statistics
from fume_jax.learning.bootstrap import bootstrap_intervals, sum_by_group


def share(sums):
    """The share of right cases."""
    return {"share": float(sums["right"] / sums["all"])}


def of_groups(right, size=4):
    right = np.asarray(right)
    return {"right": right, "all": np.full(len(right), size)}


def test_groups_are_summed_in_their_order():
    counts = {"a": np.array([1, 2, 3, 4]), "b": np.ones((4, 2, 2), int)}
    found = sum_by_group(counts, np.array([7, 2, 7, 5]))
    assert found["a"].tolist() == [2, 4, 4]
    assert found["b"][:, 0, 1].tolist() == [1, 1, 2]


# --- intervals ---


def test_bca_ends_are_those_of_scipy():
    values = np.random.default_rng(1).exponential(size=25)
    peer = stats.bootstrap((values,), np.mean, n_resamples=999, method="BCa", rng=np.random.default_rng(2))
    left_out = (values.sum() - values) / (len(values) - 1)
    ends = statistics.bca_ends(values.mean(), peer.bootstrap_distribution, left_out)
    assert ends == pytest.approx(tuple(peer.confidence_interval), abs=1e-12)
    percentiles = np.quantile(peer.bootstrap_distribution, [0.025, 0.975])
    assert abs(np.subtract(ends, percentiles)).min() > 0.01, "of a skewed distribution they are others"


def test_intervals_are_bca_of_many_groups_and_by_percentiles_of_few():
    for count, method in ((20, "BCa"), (19, "percentile")):
        groups = of_groups(np.random.default_rng(3).integers(0, 5, count))
        found = statistics.resample(groups, share)
        interval = statistics.intervals(found, groups, share)["share"]
        assert interval.method == method
        assert interval.low < found.values["share"] < interval.high
    peer = bootstrap_intervals(groups, np.arange(19), share, resamples=statistics.RESAMPLES)
    assert (interval.low, interval.high) == peer["share"]


def test_a_metric_that_some_resamples_lack_has_an_interval_of_the_others():
    def recall(sums):
        return {"recall": float(sums["right"] / sums["all"]) if sums["all"] else math.nan}

    # Only two of 25 groups have a case, so that every seventh resample has none.
    groups = {"right": np.array([2, 1] + [0] * 23), "all": np.array([4, 4] + [0] * 23)}
    found = statistics.resample(groups, recall)
    assert 0.08 < np.isnan(found.draws["recall"]).mean() < 0.18
    interval = statistics.intervals(found, groups, recall)["recall"]
    assert (interval.low, interval.high, interval.method) == (0.25, 0.5, "percentile")


def test_one_group_has_no_interval_and_equal_groups_have_one_of_no_width():
    for count, expected in ((1, [math.nan] * 2), (30, [0.5] * 2)):
        groups = of_groups([2] * count)
        interval = statistics.intervals(statistics.resample(groups, share), groups, share)["share"]
        np.testing.assert_equal([interval.low, interval.high], expected)


def test_runs_are_averaged_and_their_groups_drawn_together():
    right = np.random.default_rng(4).integers(0, 5, (30, 2))
    runs = {"right": right, "all": np.full((30, 2), 4)}
    found = statistics.resample(runs, statistics.mean_over_runs(share), resamples=50)
    each = [statistics.resample(of_groups(right[:, i]), share, resamples=50) for i in range(2)]
    assert found.values["share"] == pytest.approx(np.mean([run.values["share"] for run in each]))
    np.testing.assert_allclose(found.draws["share"], np.mean([run.draws["share"] for run in each], 0))


# --- paired comparisons ---


def compare(main, other):
    return statistics.difference(*(statistics.resample(of_groups(right), share) for right in (main, other)), "share")


def test_the_difference_of_a_model_and_itself_is_0_with_p_1():
    right = np.random.default_rng(5).integers(0, 5, 40)
    assert compare(right, right) == statistics.Difference(0.0, 0.0, 0.0, 1.0)


def test_pairing_sees_what_two_intervals_do_not():
    # One case more is right in every second group; how many are differs far more between groups.
    right = np.random.default_rng(6).integers(0, 4, 60)
    found = compare(right + np.arange(60) % 2, right)
    assert found.value == pytest.approx(0.125)
    assert 0 < found.low < found.value < found.high
    # The mean of 60 values of 0 or 1/4, in equal numbers, has the standard error 1/8 / sqrt(60).
    assert found.high - found.low == pytest.approx(2 * 1.96 / 8 / 60**0.5, rel=0.1)
    assert found.p == pytest.approx(2 / (1 + statistics.RESAMPLES)), "no resample has another sign"
    turned = compare(right, right + np.arange(60) % 2)
    assert (turned.value, turned.p) == (-found.value, found.p)


def test_p_is_as_large_as_it_says_where_there_is_no_difference():
    rng, p = np.random.default_rng(7), []
    for _ in range(100):
        models = [of_groups(rng.binomial(4, 0.5, 40)) for _ in range(2)]
        found = [statistics.resample(model, share, resamples=100) for model in models]
        p.append(statistics.difference(*found, "share").p)
    assert np.mean(np.array(p) <= 0.05) < 0.12
    assert 0.38 < np.mean(np.array(p) <= 0.5) < 0.62


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=30))
def test_0_lies_outside_the_interval_where_p_is_small(groups):
    main, other = np.array(groups).T
    found = [statistics.resample(of_groups(right), share, resamples=400) for right in (main, other)]
    result = statistics.difference(*found, "share")
    assert 0 < result.p <= 1
    if result.p < 0.045:
        assert result.low > 0 or result.high < 0
    if result.p > 0.055:
        assert result.low <= 0 <= result.high


def test_models_of_other_groups_are_not_compared():
    few, many = (statistics.resample(of_groups([1] * n), share, resamples=20) for n in (3, 4))
    with pytest.raises(ValueError, match="resampled alike"):
        statistics.difference(few, many, "share")
    one = statistics.resample(of_groups([1]), share, resamples=20)
    assert math.isnan(statistics.difference(one, one, "share").p)


def test_mcnemar_is_the_exact_test_of_discordant_cases():
    # Only main is right in 8 cases and only the other in 1: p = 2 (1 + 9) / 2^9.
    main = np.array([True] * 8 + [False] + [True] * 5 + [False] * 3)
    other = np.array([False] * 8 + [True] + [True] * 5 + [False] * 3)
    found = statistics.mcnemar(main, other)
    assert (found.main_alone, found.other_alone, found.ratio) == (8, 1, 8.0)
    assert found.p == pytest.approx(20 / 512)
    # The Clopper-Pearson interval of 8 of 9 from quantiles of beta distributions.
    low, high = stats.beta.ppf(0.025, 8, 2), stats.beta.ppf(0.975, 9, 1)
    assert (found.low, found.high) == pytest.approx((low / (1 - low), high / (1 - high)))
    turned = statistics.mcnemar(other, main)
    assert turned.p == found.p and turned.low == pytest.approx(1 / found.high)


def test_mcnemar_without_discordant_cases_or_with_those_of_one_side():
    right = np.array([True, False, True])
    found = statistics.mcnemar(right, right)
    assert found.p == 1.0 and math.isnan(found.ratio)
    found = statistics.mcnemar(np.ones(3, bool), np.zeros(3, bool))
    assert (found.ratio, found.high, found.p) == (math.inf, math.inf, 0.25)
    share = 0.025 ** (1 / 3)  # the probability at which three of three have 2.5 %
    assert found.low == pytest.approx(share / (1 - share))


def test_holm_multiplies_the_smallest_by_the_number_of_comparisons():
    # Holm's own example of four: 0.02 stays above 0.05 because 0.04 of two is.
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    np.testing.assert_allclose(statistics.holm([math.nan, 0.01, 0.02]), [math.nan, 0.02, 0.02])
    assert statistics.holm([]) == []


# --- effect sizes ---


def test_the_standardized_difference_is_the_mean_by_the_standard_deviation():
    value, low, high = statistics.standardized_difference(np.array([1.0, 2.0, 3.0, math.nan]))
    assert value == pytest.approx(2.0)
    # t = 2 sqrt(3) of 2 degrees of freedom is at either end of 95 % of the noncentral t distributions of the ends.
    t, root = 2 * 3**0.5, 3**0.5
    assert stats.nct.cdf(t, 2, low * root) == pytest.approx(0.975, abs=1e-6)
    assert stats.nct.cdf(t, 2, high * root) == pytest.approx(0.025, abs=1e-6)


def test_the_interval_of_many_small_differences_is_that_of_a_normal_mean():
    differences = stats.norm.ppf((np.arange(1000) + 0.5) / 1000)
    value, low, high = statistics.standardized_difference(differences)
    assert abs(value) < 1e-12
    assert (low, high) == pytest.approx((-1.96 / 1000**0.5, 1.96 / 1000**0.5), rel=0.01)
    value, low, high = statistics.standardized_difference(differences + 3)
    assert 2.8 < low < value < high < 3.2


@pytest.mark.parametrize("differences", [[], [1.0], [0.5, 0.5, 0.5], [math.nan, 1.0], [0.3, 0.1 + 0.2] * 9])
def test_differences_that_are_too_few_or_all_the_same_have_no_effect_size(differences):
    assert np.isnan(statistics.standardized_difference(np.array(differences))).all()
