"""Calibration against torchmetrics; intervals against theory and simulation."""

import numpy as np
import pytest
import torch
from scipy import special, stats
from torchmetrics.functional.classification import multiclass_calibration_error

from fume_jax.learning.bootstrap import bootstrap_intervals
from fume_jax.learning.calibration import (
    FEWEST,
    confidence_at,
    expected_calibration_error,
    fit_temperature,
    reliability,
    risk_coverage,
    soften,
)
from fume_jax.learning.metrics import compute_metrics


def predictions(seed, examples=500, classes=3, sharpness=2.0):
    rng = np.random.default_rng(seed)
    probabilities = special.softmax(sharpness * rng.standard_normal((examples, classes)), -1)
    return probabilities, rng.integers(0, classes, examples)


def top(*confidences):
    """Probabilities of two classes, the first being the more probable."""
    return np.array([[p, 1 - p] for p in confidences])


# --- calibration ---


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("sharpness", [0.1, 2, 8])
def test_calibration_error_equals_torchmetrics(dtype, bins, sharpness):
    probabilities, labels = predictions(0, sharpness=sharpness)
    probabilities = probabilities.astype(dtype)
    tensors = torch.from_numpy(probabilities), torch.from_numpy(labels)
    expected = multiclass_calibration_error(*tensors, num_classes=3, n_bins=bins, norm="l1")
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(float(expected), abs=1e-6)


def test_calibration_error_done_by_hand():
    # Two in [0.5, 0.75) with mean 0.6, one right; two in [0.75, 1], mean 0.9, both right.
    error = expected_calibration_error(top(0.55, 0.65, 0.8, 1.0), np.array([0, 1, 0, 0]), bins=4)
    assert error == pytest.approx(0.5 * abs(0.6 - 0.5) + 0.5 * abs(0.9 - 1))


def test_bins_hold_their_lower_edge_and_the_last_one_its_upper_too():
    examples, confidence, accuracy = reliability(top(0.5, 0.75, 1.0), np.array([0, 1, 0]), bins=4)
    assert examples.tolist() == [0, 0, 1, 2]
    np.testing.assert_allclose(confidence, [np.nan, np.nan, 0.5, 0.875])
    np.testing.assert_allclose(accuracy, [np.nan, np.nan, 1, 0.5])


def test_probabilities_that_are_true_have_a_small_error_and_overconfident_ones_a_large():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((20_000, 3))
    probabilities = special.softmax(logits, -1)
    labels = (rng.random((len(logits), 1)) > probabilities.cumsum(-1)).sum(-1)
    assert expected_calibration_error(probabilities, labels) < 0.02
    assert expected_calibration_error(special.softmax(4 * logits, -1), labels) > 0.2


def test_calibration_of_nothing_is_undefined():
    assert np.isnan(expected_calibration_error(np.zeros((0, 3)), np.zeros(0, int)))


# --- intervals ---


def mean(counts):
    return {"mean": counts["sum"] / counts["examples"]}


def mean_interval(values, groups, **options):
    counts = {"sum": np.asarray(values, float), "examples": np.ones(len(values), int)}
    return bootstrap_intervals(counts, groups, mean, **options)["mean"]


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_the_interval_of_a_proportion_is_that_of_the_normal_approximation(level, rate):
    examples = 1000
    values = np.arange(examples) < rate * examples
    low, high = mean_interval(values, np.arange(examples), level=level, resamples=4000)
    half = stats.norm.ppf((1 + level) / 2) * np.sqrt(rate * (1 - rate) / examples)
    assert (low, high) == pytest.approx((rate - half, rate + half), abs=0.1 * half)


def test_copies_within_a_group_do_not_narrow_the_interval():
    values, groups = np.random.default_rng(0).random(60), np.arange(60)
    alone = mean_interval(values, groups)
    assert mean_interval(np.repeat(values, 9), np.repeat(groups, 9)) == pytest.approx(alone)
    low, high = mean_interval(np.repeat(values, 9), np.arange(540))
    assert high - low == pytest.approx((alone[1] - alone[0]) / 3, rel=0.15), "as if all were independent"


def test_group_numbers_and_the_order_of_examples_do_not_matter():
    rng = np.random.default_rng(0)
    values, groups = rng.random(50), rng.integers(0, 12, 50)
    order = rng.permutation(50)
    assert mean_interval(values[order], 1000 + 7 * groups[order]) == pytest.approx(mean_interval(values, groups))


def test_intervals_depend_on_the_seed_alone():
    values, groups = np.random.default_rng(0).random(40), np.arange(40) // 2
    assert mean_interval(values, groups, seed=1) == mean_interval(values, groups, seed=1)
    assert mean_interval(values, groups, seed=1) != mean_interval(values, groups, seed=2)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng, held, trials = np.random.default_rng(0), 0, 300
    groups = np.repeat(np.arange(40), 5)
    for trial in range(trials):
        # What is common to a group dominates; draws of examples would hold the truth in 56 of 100.
        values = rng.standard_normal(40)[groups] + 0.3 * rng.standard_normal(len(groups))
        low, high = mean_interval(values, groups, resamples=300, seed=trial, level=0.9)
        held += low <= 0 <= high
    assert 0.84 <= held / trials <= 0.94


def test_resamples_without_a_value_do_not_count():
    # One group alone has examples: where it is not drawn, which is in a third of the resamples, there is no mean.
    with np.errstate(invalid="ignore"):
        counts = {"sum": np.array([3.0, 0, 0, 0]), "examples": np.array([4, 0, 0, 0])}
        assert bootstrap_intervals(counts, np.arange(4), mean) == {"mean": (0.75, 0.75)}
        counts = {name: np.zeros(4) for name in counts}
        assert np.isnan(bootstrap_intervals(counts, np.arange(4), mean)["mean"]).all()


@pytest.mark.parametrize("examples", [1, 5])
def test_one_group_has_no_interval(examples):
    assert np.isnan(mean_interval(np.arange(examples), np.zeros(examples, int))).all()


def test_intervals_of_metrics_from_confusion_counts_hold_the_metrics():
    rng = np.random.default_rng(0)
    counts = {f"{name}_confusion": rng.integers(0, 900, (30, 3, 3), dtype=np.int32) for name in ("cls", "co2", "ch4")}
    intervals = bootstrap_intervals(counts, np.arange(30) // 3, compute_metrics, resamples=200)
    metrics = compute_metrics({name: values.sum(0) for name, values in counts.items()})
    assert intervals.keys() == metrics.keys()
    for name in ("accuracy", "macro_f1", "co2/iou_gas", "joint_score"):
        low, high = intervals[name]
        assert 0 < low < metrics[name] < high < 1


def test_pixels_of_many_frames_are_summed_in_64_bits():
    confusion = np.array([[0, 0, 0], [0, 0, 0], [2**29, 0, 2**30]], np.int32)
    counts = {"co2_confusion": np.repeat(confusion[None], 30, 0)}
    intervals = bootstrap_intervals(counts, np.arange(30) // 3, compute_metrics, resamples=20)
    assert intervals["co2/iou_gas"] == pytest.approx((2 / 3, 2 / 3))


def test_the_temperature_that_sharpened_probabilities_is_found_and_taken_back():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (6000, 3))
    true = special.softmax(logits, -1)
    labels = (rng.random((6000, 1)) > true.cumsum(-1)).sum(-1)
    for factor in (0.5, 1.0, 3.0):
        given = special.softmax(factor * logits, -1)
        temperature = fit_temperature(given, labels)
        assert temperature == pytest.approx(factor, rel=0.06)
        np.testing.assert_allclose(soften(given, factor), true, atol=1e-12)
        assert expected_calibration_error(soften(given, temperature), labels) < 0.02


def test_examples_that_are_few_or_always_right_or_wrong_do_not_tell_a_temperature():
    certain, labels = np.eye(3)[np.arange(30) % 3], np.arange(30) % 3
    assert fit_temperature(top(*np.linspace(0.7, 0.9, 30)), np.zeros(30, int)) == 1.0
    assert fit_temperature(certain, 2 - labels) == 1.0
    unsure = top(*np.full(30, 0.9))
    wrong = np.where(np.arange(30) % 3, 0, 1)
    assert fit_temperature(unsure, wrong) > 1.5
    assert fit_temperature(unsure[: FEWEST - 1], wrong[: FEWEST - 1]) == 1.0
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, int)) == 1.0
    assert np.isfinite(soften(certain, 2.0)).all()


@pytest.mark.parametrize("count", [1, 4, 5, 10, 15, 35, 101])
def test_the_surest_four_fifths_are_kept_and_no_more(count):
    probabilities, _ = predictions(count, examples=count)
    kept = probabilities.max(-1) >= confidence_at(probabilities)
    assert kept.sum() == -(-4 * count // 5)


def test_a_confidence_by_hand_and_of_nothing():
    assert confidence_at(top(0.9, 0.6, 0.8, 0.7, 0.55)) == 0.6
    assert confidence_at(top(0.9, 0.6, 0.8, 0.7, 0.55), coverage=0.4) == 0.8
    assert np.isnan(confidence_at(np.zeros((0, 3))))


def test_errors_over_coverage_by_hand():
    share, error = risk_coverage(top(0.9, 0.6, 0.8, 0.8), np.array([0, 1, 1, 0]))  # those of 0.8 go together
    np.testing.assert_allclose(share, [0.25, 0.75, 1])
    np.testing.assert_allclose(error, [0, 1 / 3, 1 / 2])
