"""Probabilities without scipy, against scipy."""

import numpy as np
import pytest
from scipy import special, stats

from fume_jax.learning import recording_class
from fume_jax.learning.probabilities import softmax, student_quantile


@pytest.mark.parametrize("freedom", [1, 1.37, 2, 5.5, 30, 1e3, 1e6])
@pytest.mark.parametrize("probability", [0.6, 0.975])
def test_quantiles_are_those_of_students_distribution(freedom, probability):
    expected = special.stdtrit(freedom, probability)
    assert student_quantile(freedom, probability) == pytest.approx(expected, rel=1e-5)


def test_the_normal_quantile_is_that_of_the_interval():
    assert pytest.approx(stats.norm.ppf((1 + recording_class.LEVEL) / 2), rel=1e-12) == recording_class.NORMAL


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_is_that_of_scipy_and_overflows_nowhere(dtype):
    logits = (np.random.default_rng(0).normal(size=(4, 5, 3)) * 300).astype(dtype)
    found = softmax(logits)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, special.softmax(logits, -1), atol=1e-6)
