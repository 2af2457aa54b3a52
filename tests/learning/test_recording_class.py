"""Class of a recording: pooling by hand, effective numbers against theory, and intervals against simulation."""

import numpy as np
import pytest
from scipy import special

from fume_jax.learning.recording_class import (
    FLOOR,
    effective_number,
    pool_probabilities,
    recording_confusions,
    summarize_class,
)


def autoregression(rng, count, correlation):
    """A stationary series of unit variance whose neighbours have this correlation."""
    noise = rng.standard_normal(count)
    series = np.empty(count)
    series[0] = noise[0]
    for i in range(1, count):
        series[i] = correlation * series[i - 1] + np.sqrt(1 - correlation**2) * noise[i]
    return series


def of_odds(odds):
    """Probabilities of two classes by the log-odds of the first."""
    return np.stack([special.expit(odds), special.expit(-odds)], -1)


def summary(probabilities, shown=None):
    return summarize_class(probabilities, np.ones(len(probabilities), bool) if shown is None else np.array(shown))


# --- pooling ---


def test_probabilities_are_pooled_by_their_geometric_mean():
    frames = np.array([[0.8, 0.1, 0.1], [0.2, 0.4, 0.4]])
    # Geometric means 0.4, 0.2 and 0.2.
    np.testing.assert_allclose(pool_probabilities(frames, np.zeros(2, int)), [[0.5, 0.25, 0.25]])


def test_recordings_are_pooled_apart():
    frames = np.array([[0.8, 0.2], [0.9, 0.1], [0.2, 0.8]])
    pooled = pool_probabilities(frames.astype(np.float32), np.array([2, 0, 2]))
    np.testing.assert_allclose(pooled, [[0.9, 0.1], [0.5, 0.5], [0.5, 0.5]], atol=1e-7)
    assert pool_probabilities(np.zeros((0, 3)), np.zeros(0, int)).shape == (0, 3)


def test_one_frame_is_no_veto():
    frames = np.array([[1.0, 0.0]] + [[0.05, 0.95]] * 10)
    assert pool_probabilities(frames, np.zeros(11, int))[0].argmax() == 1
    assert pool_probabilities(frames[:1], np.zeros(1, int))[0, 1] == pytest.approx(FLOOR, rel=1e-3)


def test_a_recording_is_as_sure_as_its_frames():
    frames = np.array([[0.7, 0.2, 0.1]])
    for count in (1, 2, 100):
        np.testing.assert_allclose(pool_probabilities(np.repeat(frames, count, 0), np.zeros(count, int)), frames)


def test_a_recording_is_confused_once_and_once_for_each_label():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])
    confusions, recordings = recording_confusions(probabilities, np.array([0, 0, 1, 1]), np.array([4, 4, 4, 2]))
    assert recordings.tolist() == [2, 4, 4]
    assert confusions.tolist() == [[[0, 0], [0, 1]], [[1, 0], [0, 0]], [[0, 0], [0, 1]]]


@pytest.mark.parametrize("seed", range(3))
def test_recordings_of_one_frame_are_confused_like_frames(seed):
    rng = np.random.default_rng(seed)
    probabilities, labels, order = rng.dirichlet([1, 1, 1], 30), rng.integers(0, 3, 30), rng.permutation(30)
    confusions, recordings = recording_confusions(probabilities, labels, order)
    assert recordings.tolist() == list(range(30))
    truth, predicted = np.argwhere(confusions)[:, 1:].T
    assert (truth[order] == labels).all() and (predicted[order] == probabilities.argmax(1)).all()


# --- class of a recording ---


def test_frames_that_show_gas_decide_and_all_do_if_none_shows_it():
    frames = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7]])
    found = summary(frames, [False, False, True])
    assert (found.index, found.frames, found.agreement) == (1, 1, 1.0)
    assert found.probability == pytest.approx(0.7)
    found = summary(frames, [False] * 3)
    assert (found.index, found.frames) == (0, 3)
    assert found.agreement == pytest.approx(2 / 3)


def test_frames_without_a_class_are_left_out():
    frames = np.array([[0.9, 0.1], [np.nan, np.nan], [0.3, 0.7]])
    assert summary(frames).frames == 2
    # The one frame that shows gas was not classified.
    assert summary(frames, [False, True, False]).frames == 2
    assert summary(frames[1:2]) is None
    assert summary(frames[:0]) is None


def test_a_class_may_have_most_of_the_evidence_and_few_of_the_frames():
    found = summary(np.array([[0.99, 0.01], [0.4, 0.6], [0.4, 0.6]]))
    assert found.index == 0
    assert found.agreement == pytest.approx(1 / 3)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_frames_does_not_matter_for_the_class(seed):
    rng = np.random.default_rng(seed)
    frames = rng.dirichlet([2, 2, 2], 40)
    found, other = summary(frames), summary(rng.permutation(frames))
    assert (found.index, found.agreement) == (other.index, other.agreement)
    assert found.probability == pytest.approx(other.probability)
    assert summary(frames[::-1]).effective_frames == pytest.approx(found.effective_frames)


# --- effective number ---


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_the_effective_number_of_an_autoregression_is_that_of_theory(correlation):
    rng = np.random.default_rng(0)
    numbers = [effective_number(autoregression(rng, 2000, correlation)) for _ in range(20)]
    assert np.median(numbers) == pytest.approx(2000 * (1 - correlation) / (1 + correlation), rel=0.15)


def test_the_effective_number_done_by_hand():
    # Deviations +-1 in four pairs: the autocovariances are 1, 0, ..., so the autocorrelation of the first lag, over
    # seven products of sum 1, is 1/8; the next pair of lags has -6/8 and -1/8 - ..., which ends the sum.
    assert effective_number(np.array([1.0, 1, -1, -1, 1, 1, -1, -1])) == pytest.approx(8 / (1 + 2 / 8))


def test_the_effective_number_lies_between_one_and_the_number():
    assert effective_number(np.array([3.0])) == 1
    assert effective_number(np.full(50, 0.1)) == 1
    assert effective_number(np.tile([1.0, -1.0], 50)) == 100  # never more, though the mean is better than that
    assert 1 <= effective_number(np.arange(100.0)) < 10


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_of_frames_do_not_raise_the_effective_number(copies):
    series = autoregression(np.random.default_rng(0), 400, 0.3)
    assert effective_number(np.repeat(series, copies)) == pytest.approx(effective_number(series), rel=0.1)


# --- interval ---


def width(found):
    return found.interval[1] - found.interval[0]


@pytest.mark.parametrize("count", [1, 2, 50])
def test_neither_one_frame_nor_copies_of_it_have_an_interval(count):
    found = summary(np.repeat([[0.6, 0.4]], count, 0))
    assert found.interval is None
    assert (found.effective_frames, found.probability) == (1, pytest.approx(0.6))


def test_copies_of_frames_do_not_narrow_the_interval():
    frames = of_odds(autoregression(np.random.default_rng(1), 100, 0.5))
    assert width(summary(np.repeat(frames, 10, 0))) > 0.85 * width(summary(frames))


def test_more_independent_frames_narrow_the_interval():
    odds = autoregression(np.random.default_rng(2), 900, 0.0)
    assert width(summary(of_odds(odds))) == pytest.approx(width(summary(of_odds(odds[:100]))) / 3, rel=0.3)


def test_the_interval_holds_the_probability_and_depends_on_nothing_but_the_frames():
    frames = np.random.default_rng(3).dirichlet([3, 1, 1], 60)
    found = summary(frames)
    assert found.interval[0] < found.probability < found.interval[1]
    assert summary(frames) == found


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(correlation):
    rng, held, trials = np.random.default_rng(0), 0, 200
    for _ in range(trials):
        # The pooled log-odds of two classes are the mean of the log-odds, which is 1.
        low, high = summary(of_odds(1 + autoregression(rng, 200, correlation))).interval
        held += low <= special.expit(1.0) <= high
    assert 0.89 <= held / trials <= 0.99
